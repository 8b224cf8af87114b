"""Heartbeats while an activity waits, and errors in the form that Temporal retries rightly."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from temporalio import activity
from temporalio.exceptions import ApplicationError

from exchange.errors import LinkPaused, LinkUnavailable

EVERY_SECONDS = 3.0
"""A third of the heartbeat timeout: two may be lost before an attempt is given up for dead."""
PAUSED_SECONDS = 60.0
"""How long to leave the other side alone that refuses our signature."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[None]:
    """Beat in the background for as long as the block runs, with the details last given to `activity.heartbeat`."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(EVERY_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        beating.cancel()


def for_temporal(error: LinkUnavailable | LinkPaused) -> ApplicationError:
    """The same error with the pause that the other side asked for, or that a refusal deserves."""
    pause = error.retry_after if isinstance(error, LinkUnavailable) else PAUSED_SECONDS
    return ApplicationError(
        str(error),
        type=type(error).__name__,
        next_retry_delay=timedelta(seconds=min(pause, 600)) if pause else None,
    )
