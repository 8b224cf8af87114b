"""Applies the snapshots that arrived in the request network: settings, and the response network's health."""

from collections.abc import Sequence

import orjson
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.transfer.incoming import ReceivedBatch, lock_applying, mark_applied, received_range, records_of
from exchange.transfer.quarantine_store import RejectedRecord, quarantine
from exchange.wire.manifest import Manifest
from fulfilment.result_store import store_snapshot
from models.outcomes import ApplyOutcome
from models.settings import SettingsRecord
from models.streams import BatchRef, StreamName


async def apply_snapshot(engine: AsyncEngine, batch: BatchRef, outcome: ApplyOutcome) -> None:
    """Store the snapshot that this batch completes, and count in ``outcome``. A part before the last does nothing."""
    async with engine.begin() as connection:
        await lock_applying(connection, batch.stream)
        found = await received_range(connection, batch)
        if not found:
            return
        (stored,) = found
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
            await quarantine(connection, batch.model_copy(update={"sequence": part.sequence}), bad)
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
    """The batches of a snapshot, given its last one. Fewer than ``manifest.parts`` if a part is missing."""
    before = last.sequence - manifest.parts
    found = []
    for stored in await received_range(connection, last.model_copy(update={"first": before + 1})):
        its = Manifest.model_validate_json(stored.manifest)
        if (its.part, its.parts) == (stored.sequence - before, manifest.parts):
            found.append(stored)
    return found


def bad_records(stream: StreamName, numbered: Sequence[tuple[int, bytes]], complete: bool) -> list[RejectedRecord]:
    """The invalid records of a snapshot. All records are invalid if parts of the snapshot are missing."""
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
