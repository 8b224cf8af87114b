"""Errors of the link in the form that Temporal retries rightly."""

import random
from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from exchange.carriers.http import MAX_RETRY_AFTER
from exchange.errors import LinkError, LinkPaused, LinkUnavailable, Oversize
from models.errors import describe

PAUSED_SECONDS = 60.0
"""How long to leave the other side alone that refuses our signature."""

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 5.0
"""Seconds before another attempt where nothing answers; the longest is how long a link that is back goes unnoticed."""


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
    those that no retry mends. Raise it ``from None``: Temporal keeps one sentence, and not the causes' stack traces.

    It is benign: expected, told in one line by `monitoring.link_watch`, and not worth the trace of Temporal's own log.
    """
    pause = again_in(error, failures)
    return ApplicationError(
        describe(error),
        type=type(error).__name__,
        next_retry_delay=timedelta(seconds=pause),
        category=ApplicationErrorCategory.BENIGN,
    )
