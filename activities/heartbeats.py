"""Heartbeats while an activity waits, and errors in the form that Temporal retries rightly."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from exchange.errors import LinkPaused, LinkUnavailable

log = structlog.get_logger(__name__)

EVERY_SECONDS = 3.0
"""A third of the heartbeat timeout: two may be lost before an attempt is given up for dead."""
PAUSED_SECONDS = 60.0
"""How long to leave the other side alone that refuses our signature."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Callable[[Any], None]]:
    """Beat in the background for as long as the block runs.

    The block gets a function that beats with details. All beats after it, those of later attempts as well, repeat them,
    since one without would take them away.
    """
    details = list(activity.info().heartbeat_details)

    def beat_with(progress: Any) -> None:
        details[:] = [progress.model_copy() if isinstance(progress, BaseModel) else progress]
        activity.heartbeat(*details)

    async def beat() -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(EVERY_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield beat_with
    finally:
        beating.cancel()


def for_temporal(error: LinkUnavailable | LinkPaused) -> ApplicationError:
    """The same error with the pause that the other side asked for, or that a refusal deserves.

    It is benign: expected, told in one line here, and not worth the trace that Temporal's own log adds to others.
    """
    pause = error.retry_after if isinstance(error, LinkUnavailable) else PAUSED_SECONDS
    log.warning("link.away", reason=str(error), attempt=activity.info().attempt, again_in=pause)
    return ApplicationError(
        str(error),
        type=type(error).__name__,
        next_retry_delay=timedelta(seconds=min(pause, 600)) if pause else None,
        category=ApplicationErrorCategory.BENIGN,
    )
