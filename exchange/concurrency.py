"""Doing the next thing while this one is under way, so that both ends of a link are busy, or database and parser."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def concurrently(work: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Have this done beside the block, which ends no sooner; where the block is cancelled, so is this. Its error is
    raised where its result is asked for, and nowhere else.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # marks an error as seen, awaited or not
    try:
        yield task
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        await asyncio.wait((task,))
