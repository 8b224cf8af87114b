"""A process that hears a database's notices, and so may stand by for them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from storage.database import Ask, autocommit, listen
from storage.standby import Standby, somebody_stands_by
from tests.conftest import Side


@asynccontextmanager
async def hearing(side: Side, name: str = "test") -> AsyncIterator[Standby]:
    """Notices come in already; ``name`` is in the database's list of connections, with ``-listen`` behind it."""
    standby = Standby()
    listens = asyncio.Event()

    def connected(ask: Ask | None) -> None:
        standby.connected(ask)
        if ask is not None:
            listens.set()

    task = asyncio.create_task(listen(side.url, standby.hear, connected, name))
    try:
        async with asyncio.timeout(10):
            await listens.wait()
        yield standby
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def stood_by(side: Side, notice: str) -> bool:
    """Whether others see that somebody stands by."""
    async with autocommit(side.engine) as connection:
        return await somebody_stands_by(connection, notice)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return when this holds."""
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110, the database tells nobody
            await asyncio.sleep(0.01)
