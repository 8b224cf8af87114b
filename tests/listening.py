"""A process that hears a database's notices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from storage.database import Ask, listen
from storage.notices import NotificationListener
from tests.conftest import Side


@asynccontextmanager
async def listening(side: Side, name: str = "test") -> AsyncIterator[NotificationListener]:
    """Notices come in already; ``name`` is in the database's list of connections, with ``-listen`` behind it."""
    listener = NotificationListener()
    begun = asyncio.Event()

    def connected(ask: Ask | None) -> None:
        listener.connected(ask)
        if ask is not None:
            begun.set()

    task = asyncio.create_task(listen(side.url, listener.hear, connected, name))
    try:
        async with asyncio.timeout(10):
            await begun.wait()
        yield listener
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when this holds."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110, the database tells nobody
            await asyncio.sleep(0.01)
