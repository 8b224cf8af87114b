"""Doing the next thing while this one is under way: what keeps two ends of a link, or a database and a parser, busy."""

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
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # taken notice of, asked for or not
    try:
        yield task
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        await asyncio.wait((task,))
