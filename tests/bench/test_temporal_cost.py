"""What Temporal Cloud would bill for a history."""

from datetime import UTC, datetime, timedelta

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent

from bench.temporal_cost import billed

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int, kind: str, seconds: float, **more: object) -> HistoryEvent:
    """An event of a history, so many seconds after its beginning."""
    made = HistoryEvent(event_id=number, event_type=EventType.Value(f"EVENT_TYPE_{kind}"), **more)  # type: ignore[arg-type]
    made.event_time.FromDatetime(BEGIN + timedelta(seconds=seconds))
    return made


STARTED = event(1, "WORKFLOW_EXECUTION_STARTED", 0)
SCHEDULED = event(5, "ACTIVITY_TASK_SCHEDULED", 0)


def test_an_activity_costs_its_start_its_further_attempts_and_its_heartbeats() -> None:
    events = [
        STARTED,
        SCHEDULED,
        event(
            6,
            "ACTIVITY_TASK_STARTED",
            1,
            activity_task_started_event_attributes={"scheduled_event_id": 5, "attempt": 3},
        ),
        event(7, "ACTIVITY_TASK_COMPLETED", 16, activity_task_completed_event_attributes={"started_event_id": 6}),
    ]
    assert +billed(events, BEGIN + timedelta(hours=1)) == {
        "workflow started": 1,
        "activity started": 1,
        "activity tried again": 2,
        "heartbeat": 3,
    }


def test_an_activity_that_still_runs_has_sent_heartbeats_since_it_was_scheduled() -> None:
    found = billed([STARTED, SCHEDULED], BEGIN + timedelta(seconds=73))
    assert found["heartbeat"] == 11
