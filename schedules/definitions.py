"""From a cadence to the Temporal Schedule that it means, and how to tell whether two schedules mean the same."""

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
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes
from temporalio.converter import DataConverter

from configuration.cadences import (
    CACHE_MAINTENANCE,
    EXPORT_RESULTS,
    EXPORT_SETTINGS,
    SYSTEM_MONITORING,
    Cadence,
    is_followed,
)
from models.streams import Network, StreamName
from orchestration.client import TASK_TIMEOUT, task_queue

LONGEST_RUN = timedelta(hours=1)
"""Under overlap *skip* a stuck run holds back all that follow, so none may last for ever. Generous: a backlog of days
is drained in minutes, and what is left over goes with the next run."""

STREAM_ATTRIBUTE = SearchAttributeKey.for_keyword("AirlockStream")

OVERLAP = {"skip": ScheduleOverlapPolicy.SKIP, "buffer-one": ScheduleOverlapPolicy.BUFFER_ONE}


@dataclass(frozen=True)
class Scheduled:
    """What a schedule starts: a workflow by its name, what the Web UI says of it, the stream that it is found by."""

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
    """The schedule of this name, running at this cadence. Its runs are called after it, with their time added."""
    starts = SCHEDULED[schedule_id]
    attributes = [SearchAttributePair(STREAM_ATTRIBUTE, starts.stream.value)] if starts.stream else []
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
    """After this Temporal ends a run. One that follows its stream lasts for an interval, and for as long as a cron
    expression leaves between two ticks, which may be a month.
    """
    if not is_followed(schedule_id, cadence):
        return LONGEST_RUN
    return timedelta(seconds=cadence.every) + LONGEST_RUN if cadence.every else timedelta(days=32)


def _spec(cadence: Cadence) -> ScheduleSpec:
    """Temporal turns a cron expression into a calendar and keeps only its comment: so the expression is the comment."""
    jitter = timedelta(seconds=cadence.jitter) if cadence.jitter else None
    if cadence.cron is None:
        assert cadence.every is not None, "a cadence has every or cron"
        return ScheduleSpec(intervals=[ScheduleIntervalSpec(timedelta(seconds=cadence.every))], jitter=jitter)
    cron = " ".join(cadence.cron.split())
    return ScheduleSpec(cron_expressions=[f"{cron} # {cron}"], time_zone_name=cadence.time_zone, jitter=jitter)


def same_schedule(seen: Schedule, wanted: Schedule, converter: DataConverter) -> bool:
    """Whether the schedule on the server does what is wanted, when it is wanted; pause and note do not count."""
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
    """The cron expression that was sent, or from which the server made this calendar; None for a stranger's."""
    return item.partition(" # ")[2] if isinstance(item, str) else item.comment


def _argument(given: Any, converter: DataConverter) -> Any:
    return converter.payload_converter.from_payload(given) if isinstance(given, Payload) else given


def _text(summary: str | Payload | None, converter: DataConverter) -> str | None:
    if not isinstance(summary, Payload):
        return summary
    decoded: str = converter.payload_converter.from_payload(summary, str)
    return decoded
