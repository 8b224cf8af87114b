"""Doing the next thing while this one is under way, so that both ends of a link are busy, or database and parser."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def concurrently(work: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Run ``work`` concurrently with the block and wait for it on exit. It is cancelled when the block is. Its error is
    raised where the task is awaited, and nowhere else.
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
