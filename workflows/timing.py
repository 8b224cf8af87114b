"""Timeouts and retries of activities, each with its reason."""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy

from configuration.timing import HEARTBEAT_TIMEOUT

UNTIL_AN_OPERATOR_DECIDES = ["Fork", "StreamStopped", "ConfigurationError"]
"""Errors that no retry can fix. Temporal compares exact class names, not base classes."""


class Timing(TypedDict):
    """Options for `workflow.execute_activity_method`."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


QUICK: Timing = {
    "start_to_close_timeout": timedelta(minutes=2),  # a few statements, each of which PostgreSQL ends after 60 s
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

OVER_THE_LINK: Timing = {
    "start_to_close_timeout": timedelta(minutes=30),  # a long backlog; the next attempt continues where this one ended
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        maximum_interval=timedelta(seconds=5),  # retried for ever; a link that works again is noticed within this time
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

RESIDENT: Timing = OVER_THE_LINK | {
    # A link that is away names its own pause. The work of a dead worker is taken over without a long one.
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        maximum_interval=timedelta(seconds=1),
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}
"""For activities that stay and listen. They return after `orchestration.resident.ROUND_SECONDS`."""

WHOLE_BATCH: Timing = {
    "start_to_close_timeout": timedelta(hours=2),  # 5,000 requests of a slow type; results are stored on the way
    "heartbeat_timeout": HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10)),
}

HEALTH_WAITS = timedelta(seconds=60)
"""Longest wait for the link. Under overlap *skip* a run that waits longer would prevent the next measurement."""

WHILE_STOPPED = timedelta(seconds=15)
"""How often a stopped stream is tried again. After an operator's decision it continues within this time."""
