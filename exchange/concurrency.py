"""Doing two things at the same time: the link and the database, or computing in a thread."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

LARGE = 256 * 1024
"""Bytes of records from which a thread is worth its cost."""


async def in_thread_if_large(size: int, function: Callable[..., T], *args: Any) -> T:
    """Call a function that works on ``size`` bytes: in a thread from `LARGE` on, otherwise directly."""
    return await asyncio.to_thread(function, *args) if size >= LARGE else function(*args)


@asynccontextmanager
async def concurrently(work: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Run ``work`` concurrently with the block and wait for it on exit. Cancelling the block cancels the work.

    An error of the work is raised only where its result is read.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # asyncio logs errors that nobody reads
    try:
        yield task
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        await asyncio.wait((task,))
