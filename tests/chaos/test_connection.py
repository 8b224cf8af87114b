"""Calls over connections that are kept: each gets its own answer, or a reason why there is none, and none hangs."""

import asyncio

import pytest

from chaos.connection import CLOSED, Connection, Connections, as_call
from embedded.ports import free_port
from tests.bench.scripted_server import answer, scripted_server

GET = as_call("GET", "/thing", "", {"Authorization": "Bearer key"})


async def test_each_of_many_calls_at_the_same_time_gets_its_own_answer() -> None:
    async with scripted_server(lambda _number, call, _body: answer(200, call)) as server:
        connections = Connections(server.port)
        calls = (connections.call(as_call("GET", f"/{number}", "", {})) for number in range(50))
        assert await asyncio.gather(*calls) == [(200, f"GET /{number}".encode()) for number in range(50)]
        assert await connections.call(GET) == (200, b"GET /thing")
    assert server.connections <= 50, "one that is free is used again"


async def test_a_call_that_is_not_answered_in_time_is_given_up_and_the_next_is_not_told_its_answer() -> None:
    async with scripted_server(lambda number, *_: answer(200, str(number)), held=True) as server:
        connections = Connections(server.port, patience=0.2)
        assert await connections.call(GET) == (0, b"no answer within 0.2 s")
        server.released.set()
        status, body = await connections.call(GET)
    assert (status, server.connections) == (200, 2)
    assert body == b"1", "the second call's own"


async def test_who_waits_no_more_does_no_harm() -> None:
    async with scripted_server(lambda *_: answer(200, "late"), held=True) as server:
        connections = Connections(server.port)
        waiting = asyncio.create_task(connections.call(GET))
        while server.at_once < 1:  # noqa: ASYNC110, until it is there
            await asyncio.sleep(0.01)
        waiting.cancel()
        server.released.set()
        assert await connections.call(GET) == (200, b"late")


async def test_where_nobody_listens_the_reason_is_said() -> None:
    assert await Connections(free_port()).call(GET) == (0, b"no connection: ConnectionRefusedError")


async def test_a_connection_that_was_lost_before_its_first_call_says_so() -> None:
    told: list[tuple[int, bytes]] = []
    connection = Connection([])
    connection.connection_made(asyncio.Transport())
    connection.connection_lost(None)
    connection.ask(GET, lambda status, body: told.append((status, body)))
    assert told == [(0, CLOSED)]


@pytest.mark.parametrize("body", ['{"a": "ü"}', '{"a": "ü"}'.encode()])
def test_a_call_says_how_long_its_body_is(body: str | bytes) -> None:
    assert as_call("POST", "/v1/requests", body, {}).endswith(b'Content-Length: 11\r\n\r\n{"a": "\xc3\xbc"}')
