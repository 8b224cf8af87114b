"""Applying what arrived in the request network: results and snapshots, then the cache, then whoever waits."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence

import orjson
import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.client import Client

from activities.applying import RejectedRecord, ResultApplication
from activities.heartbeats import brief_until, heartbeating
from activities.standing_by import standing_by
from cache.redis_cache import Cache
from exchange.manifest import Manifest
from exchange.opening import records_of
from models.outcomes import ApplyOutcome
from models.settings import SettingsRecord
from models.streams import BatchRef, StreamName
from storage.incoming import (
    ReceivedBatch,
    lock_applying,
    mark_applied,
    quarantine,
    received_batch,
    unapplied,
)
from storage.result_store import store_snapshot
from storage.standby import Standby, received

log = structlog.get_logger(__name__)


class ImportActivities:
    """Safe to run twice: a batch is applied in one transaction that also marks it, and a result that is there stays."""

    def __init__(
        self, engine: AsyncEngine, cache: Cache, cache_seconds: int, client: Client, standby: Standby | None = None
    ) -> None:
        self._engine = engine
        self._standby = standby or Standby()
        self._results = ResultApplication(engine, cache, cache_seconds, client)
        self._turns: defaultdict[StreamName, asyncio.Lock] = defaultdict(asyncio.Lock)

    @activity.defn
    async def apply_batches(self, newest: BatchRef) -> ApplyOutcome:
        """Apply every batch of the stream up to ``newest`` that is not applied yet, in order, each in one transaction;
        of results also those that come in meanwhile.

        Runs take turns here, before they do in the database: one that waits there would hold a connection meanwhile.
        """
        outcome, until = ApplyOutcome(), brief_until()
        async with heartbeating() as beat, self._turns[newest.stream]:
            if newest.stream.kind is StreamName.RESULTS:
                await self._results.apply_all(newest.stream, outcome, beat, until)
            else:
                before = -1
                while outcome.batches > before and (waiting := await self._waiting(newest)):
                    before = outcome.batches
                    for batch in waiting:
                        await self._apply_snapshot(batch, outcome)
                        beat(outcome)
        return outcome

    @activity.defn
    async def apply_when_received(self, stream: StreamName) -> ApplyOutcome:
        """Stand by for `STANDS_BY_SECONDS`, and apply at once what comes of a partition of results.

        An activity that is not local applies what is there.
        """
        outcome = ApplyOutcome()
        async with heartbeating() as beat, standing_by(self._standby, received(stream)) as may_be_something:
            while not outcome.more and await may_be_something():
                async with self._turns[stream]:
                    await self._results.apply_all(stream, outcome, beat, brief_until())
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
