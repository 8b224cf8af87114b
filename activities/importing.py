"""Applying what arrives in the request network: results and snapshots."""

import time
from collections.abc import Sequence

import orjson
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.applying import RejectedRecord, ResultApplier
from activities.resident import Resident, heartbeating, resident
from cache.redis_cache import Cache
from exchange.manifest import Manifest
from exchange.opening import records_of
from models.outcomes import ApplyOutcome
from models.settings import SettingsRecord
from models.streams import BatchRef, StreamName
from storage.attendance import RENEW_SECONDS, RESULTS, Attendance
from storage.incoming import (
    ReceivedBatch,
    first_unapplied,
    lock_applying,
    mark_applied,
    quarantine,
    received_batch,
    unapplied,
)
from storage.notices import NotificationListener, received
from storage.result_store import store_snapshot

ATTENDS_SECONDS = 600.0
"""How long a run attends after the last batch of results. It costs a heartbeat every few seconds, and a request that
comes within this time does not wait for a workflow to start: measured, some 40 ms."""


class ImportActivities:
    """Safe to run twice: a batch is applied in one transaction that also marks it, and a result that is there stays."""

    def __init__(self, engine: AsyncEngine, cache: Cache, cache_seconds: int, listener: NotificationListener) -> None:
        """``cache_seconds``: how long a result stays in the cache."""
        self._engine = engine
        self._results = ResultApplier(engine, cache, cache_seconds)
        self._listener = listener

    @activity.defn
    async def apply_and_attend(self, batch: BatchRef) -> ApplyOutcome:
        """Apply every batch of the stream that is stored and not applied, in order, each in one transaction.

        Of results also those that come in later, until none has come for `ATTENDS_SECONDS`: unless another run attends
        to them, which then applies this batch as well.
        """
        if batch.stream is not StreamName.RESULTS:
            return await self._apply_snapshots(batch)
        earlier = activity.info().heartbeat_details
        outcome = ApplyOutcome.model_validate(earlier[0]) if earlier else ApplyOutcome()
        async with resident(self._listener, received(batch.stream)) as here:
            await self._attend_to_results(outcome, here)
        return outcome

    async def _attend_to_results(self, outcome: ApplyOutcome, here: Resident) -> None:
        attendance = Attendance(self._engine, RESULTS, activity.info().workflow_id or "")
        last_batch_at = time.monotonic()

        async def progress(done: ApplyOutcome) -> None:
            here.beat(done)
            await attendance.renew_in_time()

        while await attendance.renew_in_time():
            before = outcome.batches
            await self._results.apply_stored(outcome, progress, lambda: not here.is_over)
            if here.is_over:
                outcome.unfinished = True
                return
            if outcome.batches > before:
                last_batch_at = time.monotonic()
            elif time.monotonic() - last_batch_at > ATTENDS_SECONDS and await attendance.leave_unless(_is_one_stored):
                return
            await here.wait(RENEW_SECONDS)

    async def _apply_snapshots(self, newest: BatchRef) -> ApplyOutcome:
        outcome = ApplyOutcome()
        async with heartbeating() as beat:
            before = -1
            while outcome.batches > before and (waiting := await self._waiting(newest)):
                before = outcome.batches
                for batch in waiting:
                    await self._apply_snapshot(batch, outcome)
                    beat(outcome)
        return outcome

    async def _waiting(self, newest: BatchRef) -> list[BatchRef]:
        async with self._engine.connect() as connection:
            found = await unapplied(connection, newest.stream)
        return [batch for batch in found if (batch.epoch, batch.sequence) <= (newest.epoch, newest.sequence)]

    async def _apply_snapshot(self, batch: BatchRef, outcome: ApplyOutcome) -> None:
        """Replace the snapshot by the one that this batch completes. Earlier parts wait for the one that does."""
        async with self._engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            stored = await received_batch(connection, batch.stream, batch.epoch, batch.sequence)
            if stored is None:
                return
            manifest = Manifest.model_validate_json(stored.manifest)
            if manifest.part < manifest.parts:
                return
            parts = await _parts(connection, batch, manifest)
            complete = len(parts) == manifest.parts
            good: list[bytes] = []
            quarantined = 0
            for part in parts if complete else [stored]:
                lines = await records_of(part)
                bad = bad_records(batch.stream, list(enumerate(lines, part.first_record)), complete)
                for number, body, reason in bad:
                    await quarantine(connection, batch.stream, batch.epoch, part.sequence, number, body, reason)
                rejected = {number for number, _, _ in bad}
                good += [line for number, line in enumerate(lines, part.first_record) if number not in rejected]
                quarantined += len(bad)
            replaced = complete and await store_snapshot(
                connection, batch.stream, batch.epoch, batch.sequence, manifest.sealed_at, b"\n".join(good)
            )
            for part in parts or [stored]:
                await mark_applied(connection, batch.stream, batch.epoch, part.sequence, superseded=not replaced)
        outcome.batches += len(parts)
        outcome.records += len(good) if replaced else 0
        outcome.superseded += 0 if replaced else 1
        outcome.quarantined += quarantined


async def _is_one_stored(connection: AsyncConnection) -> bool:
    return await first_unapplied(connection, StreamName.RESULTS) is not None


async def _parts(connection: AsyncConnection, last: BatchRef, manifest: Manifest) -> list[ReceivedBatch]:
    """The batches that make a snapshot together, up to its last one; fewer than its parts where one does not belong."""
    found = []
    for part in range(1, manifest.parts + 1):
        sequence = last.sequence - manifest.parts + part
        stored = await received_batch(connection, last.stream, last.epoch, sequence)
        if stored is not None:
            its = Manifest.model_validate_json(stored.manifest)
            if (its.part, its.parts) == (part, manifest.parts):
                found.append(stored)
    return found


def bad_records(stream: StreamName, numbered: Sequence[tuple[int, bytes]], complete: bool) -> list[RejectedRecord]:
    """The records of a snapshot that are not what the stream carries: all of them where parts of it are missing."""
    if not complete:
        return [(number, line, "parts of this snapshot are missing") for number, line in numbered]
    bad = []
    for number, line in numbered:
        try:
            if stream is StreamName.SETTINGS:
                SettingsRecord.validate_json(line)
            else:
                orjson.loads(line)
        except (ValidationError, orjson.JSONDecodeError) as error:
            bad.append((number, line, f"not a record of {stream}: {str(error).splitlines()[0]}"))
    return bad
