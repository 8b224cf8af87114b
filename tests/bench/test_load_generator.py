"""The load generator counts what is right and nothing else: a generator that is too kind makes every figure a lie."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from bench.figures import NotMeasured
from bench.load.generator import Generator
from bench.load.order import Ask, Order, Outcome
from bench.load.running import clean_load, load
from bench.load.tally import Tally, quantile
from chaos.connection import Connection
from embedded.ports import free_port
from tests.bench.scripted_server import Script, answer, scripted_server

READ = (Ask("GET", "/thing", contains="right"),)
SUBMIT = (Ask("POST", "/v1/requests", '{"iata":"IST"}', 202, '"id":"', '"iata":"IST"'),)


def identity(number: int) -> str:
    return str(UUID(int=number))


def accepted(number: int) -> list[bytes]:
    return answer(202, json.dumps({"ids": [identity(number)], "id": identity(number)}, separators=(",", ":")))


async def outcome_of(script: Script, asks: tuple[Ask, ...] = READ, **order: Any) -> Outcome:
    """What the generator says of a server that answers like this, after a short closed loop on one connection."""
    async with scripted_server(script) as server:
        return await run(server.port, asks, **order)


async def run(port: int, asks: tuple[Ask, ...] = READ, **order: Any) -> Outcome:
    pace = {} if "rate" in order else {"connections": 1}
    return await Generator(Order(port, asks, **{"seconds": 0.2, **pace, **order})).run()


async def test_right_answers_are_counted_and_so_is_their_time() -> None:
    outcome = await outcome_of(lambda *_: answer(200, "all right"))
    assert outcome.wrong == 0
    assert outcome.good == outcome.begun > 10
    assert outcome.rate == pytest.approx(outcome.counted / 0.2)
    assert 0 < outcome.latency_ms["p50"] <= outcome.latency_ms["p99"] <= outcome.latency_ms["max"]


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        (answer(500, "right"), "status 500 instead of 200"),
        (answer(200, "wrong"), "an answer does not contain right"),
        ([*answer(200, "right"), b"and more"], "more came than the answer's Content-Length says"),
        ([answer(200, "right")[0] + b"and more"], "more came than the answer's Content-Length says"),
        ([b"HTTP/1.1 200 OK\r\n\r\nright"], "the answer is no HTTP/1.1 with a Content-Length"),
        ([b"SPAM\r\ncontent-length: 5\r\n\r\nright"], "the answer is no HTTP/1.1 with a Content-Length"),
        (None, "the connection was closed before the answer"),
    ],
    ids=str,
)
async def test_what_is_not_the_right_answer_is_a_problem_and_never_good(
    pieces: list[bytes] | None, problem: str
) -> None:
    outcome = await outcome_of(lambda number, *_: pieces if number == 3 else answer(200, "all right"))
    assert outcome.problems in ({problem: 1}, {"the connection was closed before the answer": 1})
    assert outcome.good == outcome.begun - 1


class Wire(asyncio.Transport):
    """A transport that goes nowhere."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        pass


async def test_an_answer_in_pieces_is_put_together() -> None:
    (whole,) = answer(200, "all right")
    answers: list[tuple[int, bytes]] = []
    connection = Connection([])
    connection.connection_made(Wire())
    for _ in range(2):
        connection.ask(b"", lambda status, body: answers.append((status, body)))
        for begin, end in ((0, 7), (7, 40), (40, -3), (-3, None)):
            assert not answers
            connection.data_received(whole[begin:end])
        assert answers.pop() == (200, b"all right")


async def test_a_server_that_is_not_there_is_a_problem() -> None:
    outcome = await run(free_port())
    assert outcome.good == 0
    assert outcome.problems == {"no connection: ConnectionRefusedError": outcome.begun}


async def test_connections_are_kept_and_are_as_many_as_were_ordered() -> None:
    async with scripted_server(lambda *_: answer(200, "right")) as server:
        outcome = await run(server.port, connections=5)
    assert outcome.good > 50
    assert server.connections == 5
    assert server.most_at_once <= 5


async def test_asks_are_made_in_turn_with_the_headers_and_the_body() -> None:
    bodies: list[str] = []

    def script(_number: int, _call: str, body: str) -> list[bytes]:
        bodies.append(body)
        return answer(200, "")

    asks = (Ask("POST", "/a", "one"), Ask("GET", "/b"))
    async with scripted_server(script) as server:
        await run(server.port, asks, headers={"Authorization": "Bearer key"})
    assert server.calls[:4] == ["POST /a", "GET /b", "POST /a", "GET /b"]
    assert bodies[:2] == ["one", ""]
    assert all("\r\nAuthorization: Bearer key\r\n" in head for head in server.heads)


async def test_a_result_is_waited_for_until_it_is_there() -> None:
    def script(number: int, call: str, _body: str) -> list[bytes]:
        if call.startswith("POST"):
            return accepted(number)
        looks[call] = looks.get(call, 0) + 1
        return answer(202, "queued") if looks[call] < 3 else answer(200, f'{call} "iata":"IST"')

    looks: dict[str, int] = {}
    outcome = await outcome_of(script, SUBMIT)
    assert (outcome.wrong, outcome.good) == (0, len(looks))
    assert set(looks.values()) == {3}


@pytest.mark.parametrize(
    ("submitted", "result", "problem"),
    [
        (accepted(1), '"iata":"GVA" ' + identity(1), 'an answer does not contain "iata":"IST"'),
        (accepted(1), '"iata":"IST" ' + identity(2), "the result is that of another request"),
        (answer(202, '"id":"none"'), "", "an accepted request has no id"),
    ],
)
async def test_a_wrong_result_is_a_problem(submitted: list[bytes], result: str, problem: str) -> None:
    outcome = await outcome_of(
        lambda _, call, __: submitted if call.startswith("POST") else answer(200, result), SUBMIT, rate=5
    )
    assert outcome.problems == {problem: 1}


async def test_an_id_that_comes_twice_is_a_problem() -> None:
    right = answer(200, f'{identity(1)} "iata":"IST"')
    outcome = await outcome_of(lambda _, call, __: accepted(1) if call.startswith("POST") else right, SUBMIT)
    assert outcome.good == 1
    assert outcome.problems == {"two requests have the same id": outcome.begun - 1}


async def test_at_a_rate_requests_begin_whether_or_not_those_before_are_answered() -> None:
    async with scripted_server(lambda *_: answer(200, "right"), held=True) as server:
        running = asyncio.create_task(run(server.port, rate=50, seconds=0.4))
        while server.at_once < 20:  # noqa: ASYNC110, all of them, with not one answered
            await asyncio.sleep(0.01)
        server.released.set()
        outcome = await running
    assert (outcome.begun, outcome.good) == (20, 20)


async def test_scattered_requests_come_at_irregular_times_which_are_the_same_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def dues(scatter: float) -> list[float]:
        generator = Generator(Order(1, READ, 1.0, rate=50, scatter=scatter))
        found: list[float] = []

        async def until(moment: float) -> None:
            found.append(moment - generator._first)

        monkeypatch.setattr(generator, "_until", until)
        monkeypatch.setattr(generator, "_launch", lambda due: None)
        await generator._keep_pace()
        return [due * 50 for due in found]

    even, scattered = await dues(0.0), await dues(1.0)
    assert even == pytest.approx(list(range(50)))
    assert [int(due + 1e-6) for due in scattered] == list(range(50)), "each within its own turn"
    gaps = [after - before for before, after in itertools.pairwise(scattered)]
    assert min(gaps) < 0.5
    assert max(gaps) > 1.5
    assert await dues(1.0) == pytest.approx(scattered)


async def test_what_never_comes_is_unfinished() -> None:
    async with scripted_server(lambda *_: answer(200, "right"), held=True) as server:
        outcome = await run(server.port, rate=50, patience=0.1)
    assert (outcome.begun, outcome.good, outcome.unfinished, outcome.wrong) == (10, 0, 10, 10)


async def test_a_load_without_hope_is_given_up() -> None:
    async with scripted_server(lambda *_: answer(200, "right"), held=True) as server:
        outcome = await run(server.port, rate=100, seconds=600, most=7)
    assert (outcome.gave_up, outcome.begun) == (True, 8)
    broken = await outcome_of(lambda *_: answer(503, ""), rate=100, seconds=600, most=1000)
    assert broken.gave_up
    assert broken.problems


def test_only_what_lies_between_begin_and_end_counts() -> None:
    tally = Tally(10.0, 20.0)
    for began, ended in ((8.0, 9.0), (9.0, 11.0), (12.0, 12.5), (19.0, 21.0), (21.0, 22.0)):
        tally.begun += 1
        tally.record_end(began, ended, "")
    outcome = tally.outcome(0.0)
    assert (outcome.good, outcome.counted, outcome.rate) == (5, 2, 0.2)
    assert (outcome.latency_ms["p50"], outcome.latency_ms["max"]) == (2000.0, 2000.0)


def test_a_quantile_is_never_kinder_than_its_share() -> None:
    hundred = [float(number) for number in range(1, 101)]
    assert (quantile(hundred, 0.5), quantile(hundred, 0.99), quantile(hundred, 1.0)) == (51.0, 100.0, 100.0)


def test_an_order_has_connections_or_a_rate() -> None:
    for pace in ({}, {"connections": 1, "rate": 1.0}):
        with pytest.raises(ValueError, match="either connections or a rate"):
            Order(1, READ, 1.0, **pace)  # type: ignore[arg-type]


@pytest.fixture
async def wrong_now_and_then() -> AsyncIterator[int]:
    """The port of a server that fails every tenth call."""
    async with scripted_server(lambda number, *_: answer(500 if number % 10 == 9 else 200, "right")) as server:
        yield server.port


async def test_as_a_process_it_says_the_same(wrong_now_and_then: int, tmp_path: Path) -> None:
    order = Order(wrong_now_and_then, READ, 0.3, connections=2, headers={"A": "b"})
    outcome = await load(order, tmp_path)
    assert outcome.problems == {"status 500 instead of 200": outcome.begun // 10}
    assert outcome.good == outcome.begun - outcome.wrong > 10
    with pytest.raises(NotMeasured, match=r"not answered as they must be: status 500 instead of 200 \(\d+\)"):
        await clean_load(order, tmp_path)


async def test_a_generator_that_breaks_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(NotMeasured, match=r"the load generator ended with 1:\n(.|\n)*OverflowError"):
        await load(Order(10**9, READ, 0.1, connections=1), tmp_path)
