"""The state of a schedule, for people and programs."""

import asyncio
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field
from temporalio.api.enums.v1 import WorkflowExecutionStatus
from temporalio.client import Client, ScheduleActionStartWorkflow, ScheduleDescription
from temporalio.service import RPCError

from configuration.cadences import DEFAULT_CADENCES
from models.errors import NotFound
from schedules.answers import RPC_TIMEOUT, temporal_answers
from schedules.definitions import cron_of


class ScheduleRun(BaseModel):
    """One run that a schedule started."""

    workflow_id: str
    run_id: str
    scheduled_at: datetime
    started_at: datetime
    outcome: str = Field(description="running, completed, failed, timed-out, terminated, …", examples=["completed"])


class ScheduleView(BaseModel):
    """A schedule, its times and its last run. Exactly one of ``every`` and ``cron`` is set."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "export-results",
                    "workflow": "ExportResults",
                    "every": 120.0,
                    "cron": None,
                    "time_zone": "UTC",
                    "jitter": 0.0,
                    "overlap": "skip",
                    "paused": False,
                    "note": None,
                    "next_run": "2026-01-01T12:02:00Z",
                    "last_run": None,
                    "running": [],
                    "actions": 42,
                    "skipped_overlap": 0,
                    "missed_catch_up": 0,
                }
            ]
        }
    )

    id: str
    workflow: str
    every: float | None = Field(description="Seconds between runs")
    cron: str | None
    time_zone: str
    jitter: float = Field(description="Seconds by which a run may be delayed at random")
    overlap: str
    paused: bool
    note: str | None = Field(description="The note of the last pause or resume")
    next_run: datetime | None = Field(description="Null while it is paused")
    last_run: ScheduleRun | None
    running: list[str] = Field(description="Workflow ids of runs under way")
    actions: int = Field(description="Runs started since the schedule was made")
    skipped_overlap: int = Field(
        description="Runs skipped because one was under way, and triggers while another run was waiting already"
    )
    missed_catch_up: int = Field(description="Runs missed because an outage was longer than the catch-up window")


def known_schedule(schedule_id: str) -> str:
    """Return the id if it is one of ours. Raises `NotFound` with the names of ours."""
    if schedule_id not in DEFAULT_CADENCES:
        raise NotFound(f"There is no schedule {schedule_id!r}; there are {', '.join(DEFAULT_CADENCES)}")
    return schedule_id


async def list_schedules(client: Client) -> list[ScheduleView]:
    """Our schedules that exist, in the table's order. Raises `Unavailable`."""

    async def look(schedule_id: str) -> ScheduleView | None:
        try:
            return await describe(client, schedule_id)
        except NotFound:
            return None

    found = await asyncio.gather(*(look(schedule_id) for schedule_id in DEFAULT_CADENCES))
    return [view for view in found if view is not None]


async def describe(client: Client, schedule_id: str) -> ScheduleView:
    """One of our schedules. Raises `NotFound` or `Unavailable`."""
    with temporal_answers(client, known_schedule(schedule_id)):
        found = await client.get_schedule_handle(schedule_id).describe(rpc_timeout=RPC_TIMEOUT)
    view = view_of(found)
    if view.last_run is not None and view.last_run.outcome == "running" and not _is_known_to_run(found, view.last_run):
        view.last_run.outcome = await _outcome(client, view.last_run)
    return view


def view_of(description: ScheduleDescription) -> ScheduleView:
    """A schedule as Temporal describes it, in our terms."""
    schedule, info = description.schedule, description.info
    spec, action = schedule.spec, schedule.action
    crons = [cron_of(calendar) or "a calendar made by another tool" for calendar in spec.calendars]
    return ScheduleView(
        id=description.id,
        workflow=action.workflow if isinstance(action, ScheduleActionStartWorkflow) else "",
        every=spec.intervals[0].every.total_seconds() if spec.intervals else None,
        cron="; ".join(crons) or None,
        time_zone=spec.time_zone_name or "UTC",
        jitter=spec.jitter.total_seconds() if spec.jitter else 0.0,
        overlap=schedule.policy.overlap.name.lower().replace("_", "-"),
        paused=schedule.state.paused,
        note=schedule.state.note or None,
        next_run=info.next_action_times[0] if info.next_action_times and not schedule.state.paused else None,
        last_run=_last_run(description),
        running=[running.workflow_id for running in info.running_actions if hasattr(running, "workflow_id")],
        actions=info.num_actions,
        skipped_overlap=info.num_actions_skipped_overlap,
        missed_catch_up=info.num_actions_missed_catchup_window,
    )


def _is_known_to_run(description: ScheduleDescription, run: ScheduleRun) -> bool:
    return run.run_id in [running.run_id for running in description.raw_description.info.running_workflows]


async def _outcome(client: Client, run: ScheduleRun) -> str:
    """Ask the run itself: of runs that start in the same second, the schedule records the end of only one."""
    try:
        found = await client.get_workflow_handle(run.workflow_id, run_id=run.run_id).describe(rpc_timeout=RPC_TIMEOUT)
    except RPCError:
        return "unknown"
    return found.status.name.lower().replace("_", "-") if found.status else "unknown"


def _last_run(description: ScheduleDescription) -> ScheduleRun | None:
    """Read from the raw answer: the SDK's class does not have the run's outcome."""
    recent = description.raw_description.info.recent_actions
    if not recent:
        return None
    last = max(recent, key=lambda run: run.actual_time.ToNanoseconds())
    status = WorkflowExecutionStatus.Name(last.start_workflow_status)
    moments = [moment.ToDatetime(tzinfo=UTC) for moment in (last.schedule_time, last.actual_time)]
    return ScheduleRun(
        workflow_id=last.start_workflow_result.workflow_id,
        run_id=last.start_workflow_result.run_id,
        scheduled_at=moments[0],
        started_at=moments[1],
        outcome=status.removeprefix("WORKFLOW_EXECUTION_STATUS_").lower().replace("_", "-"),
    )
