"""Cost of a drain in Temporal: billable actions and history events per 1,000 results."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from temporalio.api.enums.v1 import EventType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.client import Client

from bench.backlog import backlog, clear
from bench.drain import drained
from bench.figures import OURS, Figure, Line, Options, Spread
from bench.stage import stage

RECORDS = 1_000_000

ACTIONS = {
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED: "workflow started",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED: "signal",
    EventType.EVENT_TYPE_TIMER_STARTED: "timer started",
    EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED: "activity started",
    EventType.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES: "search attributes upserted",
    EventType.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED: "update",
    EventType.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED: "child workflow started",
    EventType.EVENT_TYPE_MARKER_RECORDED: "side effects",
}
"""Events that Temporal Cloud bills as an action (https://docs.temporal.io/cloud/actions). Billed in addition: each
further attempt of an activity, each heartbeat that reaches the server, and two for each run of a schedule, which counts
as three with the start of its workflow."""
HEARTBEAT_SECONDS = 7.2
"""Least time between two heartbeats: the SDK sends one in 0.8 of the heartbeat timeout (`workflows.timing`). Histories
do not show them."""


class TemporalCost(Figure):
    """Temporal's actions and history events per 1,000 results of a drain.

    Read from the histories of all workflows of both networks that started during the drain."""

    name = "temporal-cost"
    rounds = 1

    async def measure(self, options: Options) -> Sequence[Line]:
        """One drain is enough, because counts have no noise."""
        count = max(int(RECORDS * options.scale), 10_000)
        async with stage(options.root / "temporal-cost") as airlock:
            await clear(airlock)
            await backlog(airlock, 0, count)
            began = datetime.now(UTC)
            await drained(airlock, count)
            actions: Counter[str] = Counter()
            events = 0
            for network in ("request", "response"):
                counted, seen = await _cost(await airlock.temporal(network), began)
                actions += counted
                events += seen
        details = {"actions": dict(actions), "events": events, "records": count}
        return [
            _line("Temporal actions per 1,000 results drained", 5, sum(actions.values()) / count * 1000, details),
            _line("Temporal history events per 1,000 results drained", 20, events / count * 1000, details),
        ]


def _line(what: str, most: float, per_thousand: float, details: dict[str, object]) -> Line:
    return Line(
        what=what,
        unit="per 1,000 results",
        aim=f"≤ {most:g}",
        met=per_thousand <= most,
        measured={OURS: Spread((per_thousand,))},
        note="no limit: without orchestration there are none; no rival: Celery has no histories",
        details=details,
        less_is_better=True,
    )


async def _cost(client: Client, since: datetime) -> tuple[Counter[str], int]:
    """Billable actions and history events of the workflows that started since then."""
    actions: Counter[str] = Counter()
    events = 0
    async for found in client.list_workflows(f"StartTime >= '{since:%Y-%m-%dT%H:%M:%S.%fZ}'"):
        history = await client.get_workflow_handle(found.id, run_id=found.run_id).fetch_history()
        events += len(history.events)
        actions += billed(history.events, datetime.now(UTC))
        if "TemporalScheduledById" in found.search_attributes:
            actions["schedule"] += 2
    return actions, events


def billed(events: Sequence[HistoryEvent], now: datetime) -> Counter[str]:
    """The actions that one history shows, and the most heartbeats that its activities can have sent.

    The history does not show the start of an activity that is still running, so its time is taken from its scheduling.
    """
    actions: Counter[str] = Counter()
    begun: dict[int, datetime] = {}
    running: dict[int, datetime] = {}
    for event in events:
        at = event.event_time.ToDatetime(UTC)
        if event.event_type in ACTIONS:
            actions[ACTIONS[event.event_type]] += 1
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            running[event.event_id] = at
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_STARTED:
            begun[event.event_id] = at
            running.pop(event.activity_task_started_event_attributes.scheduled_event_id)
            actions["activity tried again"] += event.activity_task_started_event_attributes.attempt - 1
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            started = begun[event.activity_task_completed_event_attributes.started_event_id]
            actions["heartbeat"] += _heartbeats(started, at)
    for scheduled in running.values():
        actions["heartbeat"] += _heartbeats(scheduled, now)
    return actions


def _heartbeats(begin: datetime, end: datetime) -> int:
    return 1 + int((end - begin).total_seconds() / HEARTBEAT_SECONDS)
