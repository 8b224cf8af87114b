"""At start-up, makes the schedules on the server equal to the table of cadences. Changes only what differs."""

from collections.abc import Container, Mapping

import structlog
from pydantic import BaseModel, Field
from temporalio.client import (
    Client,
    Schedule,
    ScheduleAlreadyRunningError,
    ScheduleUpdate,
    ScheduleUpdateInput,
)
from temporalio.service import RPCError, RPCStatusCode

from configuration.cadences import Cadence
from models.errors import ConfigurationError, InvalidInput
from schedules.answers import RPC_TIMEOUT, temporal_answers
from schedules.definitions import same_schedule, schedule_for

log = structlog.get_logger(__name__)

MARK = {"airlock": "schedule"}
"""The memo of our schedules. A schedule without it is not ours, and is never deleted."""


class SyncOutcome(BaseModel):
    """The ids of the schedules, by what happened to them."""

    created: list[str] = Field(default_factory=list)
    changed: list[str] = Field(default_factory=list)
    unchanged: list[str] = Field(default_factory=list)
    deleted: list[str] = Field(default_factory=list)


async def sync_schedules(client: Client, cadences: Mapping[str, Cadence]) -> SyncOutcome:
    """Create missing schedules, change those that differ, and delete ours that are no longer configured.

    An operator's pause and note are kept. Any number of workers may do this at the same time. Raises `Unavailable` when
    Temporal does not answer, and `ConfigurationError` for a cadence that it does not accept.
    """
    outcome = SyncOutcome()
    for schedule_id, cadence in cadences.items():
        try:
            with temporal_answers(client, schedule_id):
                kind = await _sync(client, schedule_id, schedule_for(schedule_id, cadence))
        except InvalidInput as error:
            raise ConfigurationError(f"AIRLOCK_RESPONSE_CADENCES, {schedule_id}: {error}") from error
        getattr(outcome, kind).append(schedule_id)
    with temporal_answers(client):
        outcome.deleted = await _delete_ours_except(client, cadences.keys())
    log.info("schedules.synced", **outcome.model_dump())
    return outcome


async def restore_schedules(client: Client, cadences: Mapping[str, Cadence]) -> list[str]:
    """Create the schedules that were deleted while workers run; returns their ids. Changes no others.

    A worker's start does more (`sync_schedules`): it must not undo what workers with another table have made.
    """
    with temporal_answers(client):
        present = {found.id async for found in await client.list_schedules(rpc_timeout=RPC_TIMEOUT)}
    restored = []
    for schedule_id in cadences.keys() - present:
        with temporal_answers(client, schedule_id):
            try:
                await _create(client, schedule_id, schedule_for(schedule_id, cadences[schedule_id]))
            except ScheduleAlreadyRunningError:  # the list lags, or another worker was first
                continue
        restored.append(schedule_id)
        log.warning("schedule.restored", schedule=schedule_id, reason="it was deleted while a worker runs")
    return restored


async def _create(client: Client, schedule_id: str, wanted: Schedule) -> None:
    # The first run starts at once, so that the first settings cross without waiting for a tick.
    await client.create_schedule(schedule_id, wanted, memo=MARK, trigger_immediately=True, rpc_timeout=RPC_TIMEOUT)


async def _sync(client: Client, schedule_id: str, wanted: Schedule) -> str:
    try:
        await _create(client, schedule_id, wanted)
        return "created"
    except ScheduleAlreadyRunningError:
        pass
    kind = "unchanged"

    def change(seen: ScheduleUpdateInput) -> ScheduleUpdate | None:
        nonlocal kind
        current = seen.description.schedule
        if same_schedule(current, wanted, client.data_converter):
            return None  # an update replaces the whole schedule, so make none without need
        kind = "changed"
        wanted.state = current.state  # a fresh state would undo the operator's pause
        return ScheduleUpdate(wanted)

    await client.get_schedule_handle(schedule_id).update(change, rpc_timeout=RPC_TIMEOUT)
    return kind


async def _delete_ours_except(client: Client, wanted: Container[str]) -> list[str]:
    """The list may lag a little. A schedule that it misses is deleted at the next start."""
    deleted = []
    async for found in await client.list_schedules(rpc_timeout=RPC_TIMEOUT):
        if found.id not in wanted and (await found.memo()).items() >= MARK.items():
            try:
                await client.get_schedule_handle(found.id).delete(rpc_timeout=RPC_TIMEOUT)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND:  # another worker deleted it
                    raise
            deleted.append(found.id)
    return deleted
