"""Turns errors of the link into failures that Temporal retries after the right pause."""

import random
from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from exchange.carriers.http import MAX_RETRY_AFTER
from exchange.errors import LinkError, LinkPaused, LinkUnavailable, Oversize
from models.errors import describe

PAUSED_SECONDS = 60.0
"""Longest pause while the other side refuses our calls."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 5.0
"""Seconds before the next attempt while nothing answers. A link that works again is noticed within the longest."""


def again_in(error: LinkError, failures: int) -> float:
    """Seconds until the next attempt, after this many failures in a row.

    This is the time that the other side asked for. Otherwise it doubles with each failure: up to `LONGEST_BACKOFF`, and
    up to `PAUSED_SECONDS` after a refusal, which may come from a wrong key or from one changed byte. Jitter keeps
    callers that failed together from returning together.
    """
    part = random.random()  # noqa: S311 - no secret
    if isinstance(error, Oversize):
        return PAUSED_SECONDS * (0.8 + 0.2 * part)
    if isinstance(error, LinkPaused):
        return min(PAUSED_SECONDS, 2.0 ** min(failures - 1, 10)) * (0.8 + 0.2 * part)
    if isinstance(error, LinkUnavailable) and error.retry_after is not None:
        return min(error.retry_after, MAX_RETRY_AFTER) + 0.1 + part
    return min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(failures - 1, 10)) * (0.5 + 0.5 * part)


def for_temporal(error: LinkError, failures: int) -> ApplicationError:
    """The same error for Temporal, with the pause before its retry. Raise it ``from None``, without causes.

    `workflows.timing` names the errors that are not retried. The category *benign* keeps the SDK from logging a stack
    trace: `monitoring.link_watch` logs the error in one line.
    """
    pause = again_in(error, failures)
    return ApplicationError(
        describe(error),
        type=type(error).__name__,
        next_retry_delay=timedelta(seconds=pause),
        category=ApplicationErrorCategory.BENIGN,
    )
