"""Makes the Temporal Schedule of a cadence, and tells whether two schedules are equal."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
)
from temporalio.common import SearchAttributePair, TypedSearchAttributes
from temporalio.converter import DataConverter

from configuration.cadences import (
    CACHE_MAINTENANCE,
    EXPORT_RESULTS,
    EXPORT_SETTINGS,
    SYSTEM_MONITORING,
    Cadence,
    is_followed,
)
from configuration.timing import TASK_TIMEOUT
from models.streams import Network, StreamName
from orchestration.client import task_queue
from orchestration.search_attributes import STREAM

LONGEST_RUN = timedelta(hours=1)
"""Temporal ends a run after this time: under overlap *skip* a stuck run would hold back all later ones. A backlog of
days is delivered in minutes, and the next run delivers the rest."""

OVERLAP = {"skip": ScheduleOverlapPolicy.SKIP, "buffer-one": ScheduleOverlapPolicy.BUFFER_ONE}


@dataclass(frozen=True)
class Scheduled:
    """A workflow that a schedule starts: its name, its summary in the Web UI, and its stream as a search attribute."""

    workflow: str
    summary: str
    stream: StreamName | None = None


SCHEDULED = {
    EXPORT_SETTINGS: Scheduled("ExportSettings", "export settings if they changed", StreamName.SETTINGS),
    EXPORT_RESULTS: Scheduled("ExportResults", "deliver results as they become ready", StreamName.RESULTS),
    SYSTEM_MONITORING: Scheduled("SystemMonitoring", "measure, raise and clear alerts", StreamName.HEALTH),
    CACHE_MAINTENANCE: Scheduled("CacheMaintenance", "tend cache and retention"),
}


def schedule_for(schedule_id: str, cadence: Cadence) -> Schedule:
    """The schedule of this name at this cadence. The workflow id of a run is the schedule's name and the time."""
    starts = SCHEDULED[schedule_id]
    attributes = [SearchAttributePair(STREAM, starts.stream.value)] if starts.stream else []
    return Schedule(
        action=ScheduleActionStartWorkflow(
            starts.workflow,
            id=schedule_id,
            task_queue=task_queue(Network.RESPONSE),
            run_timeout=longest_run(schedule_id, cadence),
            task_timeout=TASK_TIMEOUT,
            static_summary=starts.summary,
            typed_search_attributes=TypedSearchAttributes(attributes),
        ),
        spec=_spec(cadence),
        policy=SchedulePolicy(overlap=OVERLAP[cadence.overlap_policy], catchup_window=cadence.catch_up_window),
    )


def longest_run(schedule_id: str, cadence: Cadence) -> timedelta:
    """When Temporal ends a run. A run that follows its stream lasts until the next tick: an interval, or with a cron
    expression up to a month.
    """
    if not is_followed(schedule_id, cadence):
        return LONGEST_RUN
    return timedelta(seconds=cadence.every) + LONGEST_RUN if cadence.every else timedelta(days=32)


def _spec(cadence: Cadence) -> ScheduleSpec:
    """The times of a cadence. Temporal keeps only the comment of a cron expression, so it is there again."""
    jitter = timedelta(seconds=cadence.jitter) if cadence.jitter else None
    if cadence.cron is None:
        assert cadence.every is not None, "a cadence has every or cron"
        return ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(seconds=cadence.every))], jitter=jitter)
    cron = " ".join(cadence.cron.split())
    return ScheduleSpec(cron_expressions=[f"{cron} # {cron}"], time_zone_name=cadence.time_zone, jitter=jitter)


def same_schedule(seen: Schedule, wanted: Schedule, converter: DataConverter) -> bool:
    """Whether the schedule on the server has the wanted action, times and policy. Pause and note are not compared."""
    return _meaning(seen, converter) == _meaning(wanted, converter)


def _meaning(schedule: Schedule, converter: DataConverter) -> tuple[Any, ...]:
    action, spec = schedule.action, schedule.spec
    if not isinstance(action, ScheduleActionStartWorkflow):
        return ()
    return (
        (action.workflow, action.id, action.task_queue, action.run_timeout, action.task_timeout),
        [_argument(given, converter) for given in action.args],
        _text(action.static_summary, converter),
        {pair.key.name: pair.value for pair in action.typed_search_attributes},
        [(interval.every, interval.offset or timedelta()) for interval in spec.intervals],
        [cron_of(cron) for cron in spec.cron_expressions] + [cron_of(item) or repr(item) for item in spec.calendars],
        (spec.time_zone_name or "UTC", spec.jitter or timedelta(), spec.start_at, spec.end_at, len(spec.skip)),
        (schedule.policy.overlap, schedule.policy.catchup_window, schedule.policy.pause_on_failure),
    )


def cron_of(item: str | ScheduleCalendarSpec) -> str | None:
    """The cron expression of this item, from its comment; None for a calendar that was made by other tools."""
    return item.partition(" # ")[2] if isinstance(item, str) else item.comment


def _argument(given: Any, converter: DataConverter) -> Any:
    return converter.payload_converter.from_payload(given) if isinstance(given, Payload) else given


def _text(summary: str | Payload | None, converter: DataConverter) -> str | None:
    if not isinstance(summary, Payload):
        return summary
    decoded: str = converter.payload_converter.from_payload(summary, str)
    return decoded
