"""Timeouts and retries of workflows, named once, each with its reason."""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy

UNTIL_AN_OPERATOR_DECIDES = ["Fork", "StreamStopped", "ConfigurationError"]
"""Errors that no retry mends. Exact class names: Temporal matches no base classes."""


class Timing(TypedDict):
    """Options for `workflow.execute_activity_method`."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


_HEARTBEAT_TIMEOUT = timedelta(seconds=9)
"""A killed worker is noticed after this long, so that its work is taken over within 10 s."""

QUICK: Timing = {
    "start_to_close_timeout": timedelta(minutes=2),  # a few statements; the database ends each after 60 s
    "heartbeat_timeout": _HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

OVER_THE_LINK: Timing = {
    "start_to_close_timeout": timedelta(minutes=30),  # a long backlog; the next attempt goes on where this one was
    "heartbeat_timeout": _HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        maximum_interval=timedelta(seconds=5),  # for ever: how long a link that is back may go unnoticed
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

RESIDENT = OVER_THE_LINK
"""Of activities that stay and listen: they return by themselves after `orchestration.resident.ROUND_SECONDS`, well within
that bound."""

WHOLE_BATCH: Timing = {
    "start_to_close_timeout": timedelta(hours=2),  # 5,000 requests of a slow type; results are stored as they come
    "heartbeat_timeout": _HEARTBEAT_TIMEOUT,
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10)),
}

HEALTH_WAITS = timedelta(seconds=60)
"""For the link, at most: under overlap *skip* a run that waited for it would keep this side from being measured."""

WHILE_STOPPED = timedelta(seconds=15)
"""How often a stopped stream is looked at for an operator's decision; what waits on it waits no longer than this."""
