"""Operations on a schedule: trigger, pause, resume, backfill. Each returns the schedule as it is afterwards."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pydantic import Field
from temporalio.api.enums.v1 import ScheduleOverlapPolicy as OverlapPolicy
from temporalio.api.schedule.v1 import SchedulePatch
from temporalio.api.workflowservice.v1 import PatchScheduleRequest
from temporalio.client import (
    Client,
    ScheduleBackfill,
    ScheduleHandle,
    ScheduleOverlapPolicy,
    WorkflowExecutionStatus,
)

from configuration.cadences import Cadence, is_followed
from models.errors import InvalidInput
from schedules.answers import RPC_TIMEOUT, temporal_answers
from schedules.views import ScheduleView, describe, known_schedule

MOST_BACKFILLED = 1000
"""Runs in one backfill; Temporal buffers no more."""


def _handle(client: Client, schedule_id: str) -> ScheduleHandle:
    return client.get_schedule_handle(known_schedule(schedule_id))


class Triggered(ScheduleView):
    """A schedule that was triggered."""

    answered_by: str | None = Field(
        None, description="Workflow id of the run under way that does what a new run would do; null: a run was started"
    )


async def trigger(client: Client, schedule_id: str, cadences: Mapping[str, Cadence]) -> Triggered:
    """Start a run now, or right after the current one. This also works while the schedule is paused.

    A run that lasts until the next tick answers the trigger: no other run is started.

    Two runs may overlap, so scheduled workflows must allow that: Temporal (server 1.32) names runs by the second, and
    loses track of the later one of two that start in the same second. Then it does not hold back a third.

    Raises `NotFound` or `Unavailable`, as do all of these.
    """
    if is_followed(known_schedule(schedule_id), cadences[schedule_id]):
        view = await describe(client, schedule_id)
        if not view.paused and (run := await _under_way(client, view)):
            return Triggered(**view.model_dump(), answered_by=run)
    with temporal_answers(client, schedule_id):
        await _handle(client, schedule_id).trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE, rpc_timeout=RPC_TIMEOUT)
    return Triggered(**(await describe(client, schedule_id)).model_dump())


async def _under_way(client: Client, view: ScheduleView) -> str | None:
    """The run under way. The schedule itself may still list a run that has just ended."""
    for workflow_id in view.running:
        with temporal_answers(client, view.id):
            found = await client.get_workflow_handle(workflow_id).describe(rpc_timeout=RPC_TIMEOUT)
        if found.status is WorkflowExecutionStatus.RUNNING:
            return workflow_id
    return None


async def pause(client: Client, schedule_id: str, note: str) -> ScheduleView:
    """Start no more runs by the clock; ``note`` says why. A pause survives restarts, and the current run goes on."""
    with temporal_answers(client, schedule_id):
        await _handle(client, schedule_id).pause(note=note, rpc_timeout=RPC_TIMEOUT)
    return await describe(client, schedule_id)


async def resume(client: Client, schedule_id: str, note: str, cadences: Mapping[str, Cadence]) -> ScheduleView:
    """Run by the clock again. A schedule that follows its stream also starts a run at once."""
    patch = SchedulePatch(unpause=note)
    if is_followed(known_schedule(schedule_id), cadences[schedule_id]):
        # Both in one call: a trigger that comes right after the end of a pause may find the schedule still paused.
        patch.trigger_immediately.overlap_policy = OverlapPolicy.SCHEDULE_OVERLAP_POLICY_BUFFER_ONE
    request = PatchScheduleRequest(
        namespace=client.namespace,
        schedule_id=schedule_id,
        patch=patch,
        identity=client.identity,
        request_id=str(uuid4()),
    )
    with temporal_answers(client, schedule_id):
        await client.workflow_service.patch_schedule(request, timeout=RPC_TIMEOUT, retry=True)
    return await describe(client, schedule_id)


async def backfill(client: Client, schedule_id: str, start: datetime, end: datetime) -> ScheduleView:
    """Start a run for each of the schedule's times between ``start`` and ``end``, one after the other.

    A time equal to ``end`` counts; for ``start`` this depends on the Temporal server's version.
    Raises `InvalidInput` for times without a zone, in the wrong order or in the future, and for too many runs.
    """
    view = await describe(client, schedule_id)
    if start.tzinfo is None or end.tzinfo is None:
        raise _wrong("start", "start and end need a time zone, as in 2026-01-01T00:00:00Z")
    if not start < end:
        raise _wrong("start", f"start ({start.isoformat()}) must be before end ({end.isoformat()})")
    if end > datetime.now(UTC):
        raise _wrong("end", f"end ({end.isoformat()}) is in the future: a backfill is for past times")
    # The shortest time between two runs of a cron expression is a minute.
    runs = (end - start) / timedelta(seconds=view.every or 60.0)
    if runs > MOST_BACKFILLED:
        raise _wrong(
            "end", f"that could be {runs:.0f} runs, but at most {MOST_BACKFILLED} are possible: choose a shorter time"
        )
    with temporal_answers(client, schedule_id):
        await _handle(client, schedule_id).backfill(
            ScheduleBackfill(start_at=start, end_at=end, overlap=ScheduleOverlapPolicy.BUFFER_ALL),
            rpc_timeout=RPC_TIMEOUT,
        )
    return await describe(client, schedule_id)


def _wrong(field: str, message: str) -> InvalidInput:
    return InvalidInput(message, errors=[{"field": field, "message": message}])
