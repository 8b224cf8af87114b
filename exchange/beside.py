"""Doing the next thing while this one is under way: what keeps two ends of a link, or a database and a parser, busy."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator["asyncio.Task[T]"]:
    """Have this done beside the block; where the block ends before it, it is given up. Its error is raised where its
    result is asked for, and nowhere else.
    """
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # taken notice of
