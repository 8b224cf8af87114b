"""Timeouts and retries, named once, each with its reason."""

from datetime import timedelta
from typing import TypedDict

from temporalio.common import RetryPolicy

from models.outcomes import FIRST_LOOK_SECONDS

UNTIL_AN_OPERATOR_DECIDES = ["Fork", "StreamStopped", "ConfigurationError"]
"""Errors that no retry mends. Exact class names: Temporal matches no base classes."""


class Timing(TypedDict):
    """Options for `workflow.execute_activity_method`."""

    start_to_close_timeout: timedelta
    heartbeat_timeout: timedelta
    retry_policy: RetryPolicy


_BEAT = timedelta(seconds=9)  # a worker that was killed is noticed by it, and its work taken over within 10 s

QUICK: Timing = {
    "start_to_close_timeout": timedelta(minutes=2),  # a few statements; the database ends each after 60 s
    "heartbeat_timeout": _BEAT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=200),
        maximum_interval=timedelta(seconds=10),
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

OVER_THE_LINK: Timing = {
    "start_to_close_timeout": timedelta(minutes=30),  # a long backlog; the next attempt goes on where this one was
    "heartbeat_timeout": _BEAT,
    "retry_policy": RetryPolicy(
        initial_interval=timedelta(milliseconds=500),
        maximum_interval=timedelta(seconds=5),  # for ever: how long a link that is back may go unnoticed
        non_retryable_error_types=UNTIL_AN_OPERATOR_DECIDES,
    ),
}

ARRIVALS: Timing = QUICK | {
    "start_to_close_timeout": timedelta(minutes=30),  # a backlog is applied in one go; the next attempt carries it on
}

WHOLE_BATCH: Timing = {
    "start_to_close_timeout": timedelta(hours=2),  # 5,000 requests of a slow type; results are stored as they come
    "heartbeat_timeout": _BEAT,
    "retry_policy": RetryPolicy(initial_interval=timedelta(milliseconds=500), maximum_interval=timedelta(seconds=10)),
}

BRIEF_AT_MOST = timedelta(seconds=5)
"""For what is done within a workflow task: `models.outcomes.BRIEF_SECONDS`, and the step that it was at then. Shorter
than `configuration.temporal.TASK_TIMEOUT`, or Temporal would be told again and again that the task goes on."""

SHORTEST_RUN = timedelta(seconds=1.1)
"""Of a run that others may trigger: more than the second after which it is named."""

STAYS_READY = timedelta(seconds=5)
"""After results that got ready: others often follow, and find a run that is under way sooner than one begins."""

STANDS_BY_AT_MOST = timedelta(minutes=10)
"""Of a run that stays because one result follows another: its history stays short, and the Web UI shows what it did."""

HEALTH_WAITS = timedelta(seconds=60)
"""For the link, at most: under overlap *skip* a run that waited for it would keep this side from being measured."""

LOOK_AGAIN = (FIRST_LOOK_SECONDS, 30.0, 120.0, 600.0)
"""Seconds after which a group looks for itself, should the signal that it is complete have been lost."""


def until_look(patience: float, deadline_in: float | None) -> float:
    """Seconds until a group is looked at without having been told: this long, or when its earliest deadline passes."""
    return patience if deadline_in is None else max(0.05, min(patience, deadline_in))


def first_look(deadline_in: float | None) -> float:
    """Seconds until a new group is looked at for the first time."""
    return until_look(LOOK_AGAIN[0], deadline_in)


CALL_BACK_AGAIN = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds between rounds of callbacks that their receivers did not take."""

WHILE_STOPPED = timedelta(seconds=15)
"""How often a stopped stream is looked at for an operator's decision; what waits on it waits no longer than this."""
