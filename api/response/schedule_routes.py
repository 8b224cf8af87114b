"""Schedules: list, trigger, pause, resume and backfill them."""

from typing import Annotated

from fastapi import Body, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from schedules import operating
from schedules.views import ScheduleView, describe, list_schedules

router = operator_router("/v1/schedules", "schedules")

ScheduleId = Annotated[str, Path(max_length=100, examples=["export-results"])]


class SchedulesList(BaseModel):
    """All schedules."""

    schedules: list[ScheduleView]


class Note(BaseModel):
    """A note that is shown with the schedule until the next one."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field("", max_length=500, examples=["maintenance of the request network"])


NoteBody = Annotated[Note, Body()]
_NO_NOTE = Note(note="")


class Backfill(BaseModel):
    """A time range in the past. A run at its end is included."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}]},
    )

    start: AwareDatetime
    end: AwareDatetime


@router.get("", summary="List schedules", operation_id="list_schedules")
async def list_all(services: App, _operator: OperatorOf) -> SchedulesList:
    """All schedules with their next runs and the outcome of the last one."""
    return SchedulesList(schedules=await list_schedules(services.temporal))


@router.get("/{id}", summary="Read a schedule", operation_id="get_schedule", responses=problem_responses(404))
async def get(services: App, _operator: OperatorOf, id: ScheduleId) -> ScheduleView:
    """One schedule."""
    return await describe(services.temporal, id)


@router.post(
    "/{id}/trigger",
    status_code=202,
    summary="Run a schedule now",
    operation_id="trigger_schedule",
    responses=problem_responses(404),
)
async def trigger(services: App, _operator: OperatorOf, id: ScheduleId) -> operating.Triggered:
    """Start a run, or queue one after the current run. A run that lasts until the next tick answers by itself."""
    return await operating.trigger(services.temporal, id, services.settings.cadences)


@router.post(
    "/{id}/pause", summary="Pause a schedule", operation_id="pause_schedule", responses=problem_responses(404, 422)
)
async def pause(services: App, operator: OperatorOf, id: ScheduleId, said: NoteBody = _NO_NOTE) -> ScheduleView:
    """Start no scheduled runs until it is resumed. The pause survives restarts."""
    return await operating.pause(services.temporal, id, _signed(said, "paused", operator.name))


@router.post(
    "/{id}/resume", summary="Resume a schedule", operation_id="resume_schedule", responses=problem_responses(404, 422)
)
async def resume(services: App, operator: OperatorOf, id: ScheduleId, said: NoteBody = _NO_NOTE) -> ScheduleView:
    """Start scheduled runs again. A schedule that follows its stream starts a run at once."""
    note = _signed(said, "resumed", operator.name)
    return await operating.resume(services.temporal, id, note, services.settings.cadences)


@router.post(
    "/{id}/backfill",
    status_code=202,
    summary="Backfill a time range",
    operation_id="backfill_schedule",
    responses=problem_responses(404, 422),
)
async def backfill(services: App, _operator: OperatorOf, id: ScheduleId, time: Backfill) -> ScheduleView:
    """Start the runs that the schedule has in this range, one after the other."""
    return await operating.backfill(services.temporal, id, time.start, time.end)


def _signed(said: Note, what: str, name: str) -> str:
    return f"{said.note} ({what} by {name})" if said.note else f"{what} by {name}"
