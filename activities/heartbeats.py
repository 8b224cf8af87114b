"""Heartbeats while an activity waits, and errors in the form that Temporal retries rightly."""

import asyncio
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import structlog
from pydantic import BaseModel
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from exchange.errors import LinkError, LinkPaused, LinkUnavailable, Oversize
from exchange.link import MAX_RETRY_AFTER
from models.outcomes import BRIEF_SECONDS

log = structlog.get_logger(__name__)

EVERY_SECONDS = 3.0
"""A third of the heartbeat timeout: two may be lost before an attempt is given up for dead."""
PAUSED_SECONDS = 60.0
"""How long to leave the other side alone that refuses our signature."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 5.0
"""Seconds before another attempt where nothing answers; the longest is how long a link that is back goes unnoticed."""


def brief_until() -> float:
    """The time, by the monotonic clock, after which a local activity begins with nothing more; never, for others."""
    return time.monotonic() + BRIEF_SECONDS if activity.info().is_local else math.inf


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Callable[[Any], None]]:
    """Beat in the background for as long as the block runs; not in a local activity, whose workflow task does.

    The block gets a function that beats with details. All beats after it, those of later attempts as well, repeat them,
    since one without would take them away.
    """
    if activity.info().is_local:
        yield lambda _progress: None
        return
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


def again_in(error: LinkError, failures: int) -> float:
    """Seconds until the next attempt: what was asked for, or twice as long as before up to `LONGEST_BACKOFF`; up to
    `PAUSED_SECONDS` after a refusal, which one changed byte may cause as well as a wrong key.

    Always with some jitter, so that what failed at the same time does not come back at the same time.
    """
    part = random.random()  # noqa: S311 - nobody gains by guessing it
    if isinstance(error, Oversize):
        return PAUSED_SECONDS * (0.8 + 0.2 * part)
    if isinstance(error, LinkPaused):
        return min(PAUSED_SECONDS, 2.0 ** min(failures - 1, 10)) * (0.8 + 0.2 * part)
    if isinstance(error, LinkUnavailable) and error.retry_after is not None:
        return min(error.retry_after, MAX_RETRY_AFTER) + 0.1 + part
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * part)


def for_temporal(error: LinkError, failures: int) -> ApplicationError:
    """The same error with the pause that the other side asked for, or that a refusal deserves. `workflows.timing` names
    those that no retry mends.

    It is benign: expected, told in one line here, and not worth the trace that Temporal's own log adds to others.
    """
    pause = again_in(error, failures)
    log.warning("link.away", reason=str(error), in_a_row=failures, again_in=round(pause, 1))
    return ApplicationError(
        str(error),
        type=type(error).__name__,
        next_retry_delay=timedelta(seconds=pause),
        category=ApplicationErrorCategory.BENIGN,
    )
