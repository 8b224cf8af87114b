"""Schedules: what runs when, and an operator's hand on it."""

from typing import Annotated

from fastapi import APIRouter, Body, Path
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from api.bearer import needs_key
from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from schedules import operating
from schedules.views import ScheduleView, describe, list_schedules

router = APIRouter(
    prefix="/v1/schedules",
    tags=["schedules"],
    dependencies=[needs_key],
    responses=problem_responses(401, 403, 503),
)

ScheduleId = Annotated[str, Path(max_length=100, examples=["export-results"])]


class SchedulesList(BaseModel):
    """All schedules that there are."""

    schedules: list[ScheduleView]


class Note(BaseModel):
    """Why; shown with the schedule until the next note."""

    model_config = ConfigDict(extra="forbid")

    note: str = Field("", max_length=500, examples=["the other side moves house"])


NoteBody = Annotated[Note, Body()]
_NO_NOTE = Note(note="")


class Backfill(BaseModel):
    """A time in the past; runs at its end count."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T01:00:00Z"}]},
    )

    start: AwareDatetime
    end: AwareDatetime


@router.get("", summary="List schedules", operation_id="list_schedules")
async def list_all(services: App, _operator: OperatorOf) -> SchedulesList:
    """What runs when, what ran last and how that went."""
    return SchedulesList(schedules=await list_schedules(services.temporal))


@router.get("/{id}", summary="Read a schedule", operation_id="get_schedule", responses=problem_responses(404))
async def get(services: App, _operator: OperatorOf, id: ScheduleId) -> ScheduleView:
    """One schedule."""
    return await describe(services.temporal, id)


@router.post(
    "/{id}/trigger",
    status_code=202,
    summary="Run now",
    operation_id="trigger_schedule",
    responses=problem_responses(404),
)
async def trigger(services: App, _operator: OperatorOf, id: ScheduleId) -> operating.Triggered:
    """Starts a run, or one more after the one under way; one that stays until the next tick answers by itself."""
    return await operating.trigger(services.temporal, id, services.settings.cadences)


@router.post("/{id}/pause", summary="Pause", operation_id="pause_schedule", responses=problem_responses(404, 422))
async def pause(services: App, operator: OperatorOf, id: ScheduleId, said: NoteBody = _NO_NOTE) -> ScheduleView:
    """No more runs by the clock until it is resumed; survives restarts."""
    return await operating.pause(services.temporal, id, _signed(said, "paused", operator.name))


@router.post("/{id}/resume", summary="Resume", operation_id="resume_schedule", responses=problem_responses(404, 422))
async def resume(services: App, operator: OperatorOf, id: ScheduleId, said: NoteBody = _NO_NOTE) -> ScheduleView:
    """Runs by the clock again; what follows its stream begins at once."""
    note = _signed(said, "resumed", operator.name)
    return await operating.resume(services.temporal, id, note, services.settings.cadences)


@router.post(
    "/{id}/backfill",
    status_code=202,
    summary="Make up for the past",
    operation_id="backfill_schedule",
    responses=problem_responses(404, 422),
)
async def backfill(services: App, _operator: OperatorOf, id: ScheduleId, time: Backfill) -> ScheduleView:
    """One run for each time of the schedule in that time, one after the other."""
    return await operating.backfill(services.temporal, id, time.start, time.end)


def _signed(said: Note, what: str, name: str) -> str:
    return f"{said.note} ({what} by {name})" if said.note else f"{what} by {name}"
