"""Notices: heard when, and only when, a transaction commits; a lost connection is told and made again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from storage.database import Ask, is_unreachable, listen, lock_until_commit, notify, value
from tests.conftest import Networks

PATIENCE = 10
"""Less than the 15 s after which a silent connection is looked at: a lost one is told of sooner."""


class Listener:
    """Listens to the request network, and lets a test wait for what it hears."""

    def __init__(self, url: str) -> None:
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.connected: asyncio.Queue[bool] = asyncio.Queue()
        self.task = asyncio.create_task(listen(url, self.heard.put_nowait, self._note, "test-notices"))

    def _note(self, ask: Ask | None) -> None:
        self.connected.put_nowait(ask is not None)

    async def next(self) -> str:
        async with asyncio.timeout(PATIENCE):
            return await self.heard.get()

    async def connection(self) -> bool:
        async with asyncio.timeout(PATIENCE):
            return await self.connected.get()


@pytest.fixture
async def listener(networks: Networks) -> AsyncIterator[Listener]:
    listener = Listener(networks.request.url)
    assert await listener.connection()
    yield listener
    listener.task.cancel()
    with suppress(asyncio.CancelledError):
        await listener.task


async def say(networks: Networks, message: str) -> None:
    async with networks.request.engine.begin() as connection:
        await notify(connection, message)


async def test_a_notice_is_heard_when_its_transaction_commits_and_never_when_it_does_not(
    networks: Networks, listener: Listener
) -> None:
    async with networks.request.engine.begin() as connection:
        await notify(connection, "rolled back")
        await connection.rollback()
    async with networks.request.engine.begin() as connection:
        await notify(connection, "committed")
        await say(networks, "committed before")
    assert [await listener.next(), await listener.next()] == ["committed before", "committed"]


async def terminate(networks: Networks) -> int:
    async with networks.request.engine.connect() as connection:
        ended: int = await value(
            connection,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE application_name = 'test-notices-listen'",
        )
    return ended


async def test_a_terminated_connection_is_told_at_once_and_made_again(networks: Networks, listener: Listener) -> None:
    for number in range(2):
        assert await terminate(networks) == 1
        assert await listener.connection() is False
        assert await listener.connection() is True
        await say(networks, f"after {number}")
        assert await listener.next() == f"after {number}"


async def test_a_database_that_cannot_be_reached_is_asked_again(networks: Networks) -> None:
    refused = asyncio.Event()
    tries = 0

    async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()
        if tries >= 2:
            refused.set()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        listener = Listener(f"postgresql://user:password@127.0.0.1:{port}/x?sslmode=disable")
        async with asyncio.timeout(PATIENCE):
            await refused.wait()
        assert not listener.task.done()
        assert await listener.connection() is False
        listener.task.cancel()
        with suppress(asyncio.CancelledError):
            await listener.task


async def test_who_holds_a_lock_keeps_others_waiting_until_the_transaction_ends(networks: Networks) -> None:
    order: list[str] = []

    async def second() -> None:
        async with networks.request.engine.begin() as connection:
            await lock_until_commit(connection, "turn")
            order.append("second")

    async with networks.request.engine.begin() as connection:
        await lock_until_commit(connection, "turn")
        waiting = asyncio.create_task(second())
        async with networks.request.engine.begin() as other:
            await lock_until_commit(other, "another turn")
        async with networks.request.engine.connect() as looking, asyncio.timeout(PATIENCE):
            while not await value(looking, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
        order.append("first")
    await waiting
    assert order == ["first", "second"]


async def test_a_wrong_statement_is_not_taken_for_a_database_that_is_away(networks: Networks) -> None:
    with pytest.raises(Exception, match="nowhere") as raised:
        async with networks.request.engine.connect() as connection:
            await value(connection, "SELECT * FROM nowhere")
    assert not is_unreachable(raised.value)


async def test_a_terminated_backend_is_taken_for_a_database_that_is_away(networks: Networks) -> None:
    with pytest.raises(Exception, match=r"terminat|closed") as raised:
        async with networks.request.engine.connect() as connection:
            await value(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert is_unreachable(raised.value)
    async with networks.request.engine.connect() as connection:
        assert await value(connection, "SELECT 1") == 1
