"""Standing by within a workflow's task: what is committed meanwhile is seen to without a way through Temporal."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from temporalio import activity

from storage.standby import Standby

STANDS_BY_SECONDS = 3.0
"""For one local activity; the workflow begins another one as long as something came. What is begun at its end has
`models.outcomes.BRIEF_SECONDS` as well, before `workflows.timing.BRIEF_AT_MOST`."""


@asynccontextmanager
async def standing_by(standby: Standby, notice: str) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """The block gets a function that gives True when there may be something to do, the first time at once; False when
    the time is over, the worker stops, notices were lost, or this process stands by already.

    Where the activity is not local, and so follows such a one that failed, that is once: it waits for nothing.
    """
    if not activity.info().is_local:
        looks = iter((True,))

        async def once() -> bool:
            return next(looks, False)

        yield once
        return
    ends_at = time.monotonic() + STANDS_BY_SECONDS
    async with standby.by(notice) as post:
        stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
        has_looked = has_ended = False

        async def may_be_something() -> bool:
            nonlocal has_looked, has_ended
            if post is None or has_ended:
                return False
            if has_looked:
                hearing = asyncio.create_task(post.said.wait())
                left = max(0.0, ends_at - time.monotonic())
                await asyncio.wait((hearing, stopping), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                hearing.cancel()
            is_called = not has_looked or post.said.is_set()
            has_looked, has_ended = True, time.monotonic() >= ends_at
            post.said.clear()
            return is_called and not post.is_lost and not stopping.done()

        try:
            yield may_be_something
        finally:
            stopping.cancel()
