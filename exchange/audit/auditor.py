"""One side's own part of verifying: where its streams end, digests of its batches, and its rows against its batches."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.audit.kept_rows import (
    KeptBatch,
    kept_batches,
    manifest_hashes,
    newest_applied_snapshot,
    newest_stored,
    one_moment,
    places_of_no_batch,
    quarantined_numbers,
    range_digest,
    rows_at,
)
from exchange.audit.row_checks import Part, RowChecks, Window
from exchange.audit.sealed_ids import unsealed_results
from exchange.audit.summaries import (
    BATCHES_PER_AUDIT,
    BATCHES_PER_DIGEST,
    FINDINGS_PER_AUDIT,
    RECORDS_PER_AUDIT,
    SECONDS_PER_AUDIT,
    Audit,
    EpochSpan,
    Finding,
    Kind,
    RangeDigest,
    StreamHead,
)
from exchange.errors import Malformed
from exchange.transfer.epoch_store import boundaries, first_void
from exchange.transfer.incoming import incoming_stream
from exchange.transfer.outgoing import outbox_backlog, outgoing_stream
from exchange.transfer.quarantine_store import count_quarantined
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest, hash_of
from fulfilment.result_store import find_snapshot
from models.streams import Network, StreamName
from storage.database import value

WINDOW_RECORDS = 5000
WINDOW_BYTES = 8 * 1024 * 1024
"""Records are looked up when so many are there, or so many bytes: a batch or a few, never more."""


@dataclass(frozen=True)
class Auditor:
    """A `Side` on this side's own database. Reads only. ``retention`` in seconds."""

    engine: AsyncEngine
    network: Network
    retention: float
    live: ClassVar[bool] = True

    async def head(self, stream: StreamName) -> StreamHead:
        """Where the stream ends here."""
        async with self.engine.begin() as connection:  # not read-only: a stream begins at its first use
            now = await value(connection, "SELECT now()")
            if stream.sender is self.network:
                out = await outgoing_stream(connection, stream)
                pending, _ = await outbox_backlog(connection, stream)
                newest = (out.sequence, out.content.hex()) if out.sequence and out.content else (None, None)
                place = (out.epoch, out.sequence, out.record, out.hash.hex(), out.applied)
                rest = (pending, out.quarantined, out.stopped)
            else:
                come = await incoming_stream(connection, stream)
                row = await find_snapshot(connection, stream) if stream.is_snapshot else None
                shown = row is not None and row.epoch == come.epoch
                newest = (row.sequence, hashlib.sha256(row.records).hexdigest()) if row and shown else (None, None)
                place = (come.epoch, come.sequence, come.record, come.hash.hex(), come.applied)
                rest = (0, await count_quarantined(connection, stream), come.stopped)
            epochs = await spans(connection, self.network, stream, place[0], place[1])
        return StreamHead(
            network=self.network,
            stream=stream,
            epoch=place[0],
            sequence=place[1],
            record=place[2],
            hash=place[3],
            applied=place[4],
            pending=rest[0],
            quarantined=rest[1],
            stopped=rest[2],
            epochs=epochs,
            snapshot_sequence=newest[0],
            snapshot_sha256=newest[1],
            read_at=now,
        )

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        """Of `BATCHES_PER_DIGEST` batches at most."""
        async with self.engine.connect() as connection:
            last = min(last, first + BATCHES_PER_DIGEST - 1)
            count, digest = await range_digest(connection, self.network, stream, epoch, first, last)
        return RangeDigest(count=count, digest=digest)

    async def hashes(self, stream: StreamName, epoch: int, first: int, last: int) -> dict[int, str]:
        """The hash of each manifest of a range, by number."""
        async with self.engine.connect() as connection:
            return await manifest_hashes(connection, self.network, stream, epoch, first, last)

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        """The next batches of a range, seen in one moment: each payload, and what its records should have left."""
        async with one_moment(self.engine) as connection:
            return await self.look(connection, stream, epoch, first, last)

    async def look(self, connection: AsyncConnection, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        """The same in a transaction of the caller's."""
        outcome, until = Audit(through=last), time.monotonic() + SECONDS_PER_AUDIT
        if stream.sender is self.network and (void := await first_void(connection, stream, epoch)) is not None:
            last = min(last, void - 1)  # what was in void batches is in later ones, or was replaced by what was shown
        page = await kept_batches(connection, self.network, stream, epoch, first, last, BATCHES_PER_AUDIT)
        checks = RowChecks(
            connection, self.network, stream, epoch, self.retention, await value(connection, "SELECT now()")
        )
        window = Window()
        for batch in page:
            outcome.through = batch.sequence
            await self._take(checks, batch, window, outcome)
            if window.records >= WINDOW_RECORDS or window.raw_bytes >= WINDOW_BYTES:
                await self._close(checks, window, outcome)
                window = Window()
            if _is_full(outcome) or time.monotonic() > until:
                break
        await self._close(checks, window, outcome)
        if stream.is_snapshot and stream.receiver is self.network:
            await self._snapshot(connection, stream, epoch, first, outcome)
        return outcome

    async def orphans(self, stream: StreamName) -> list[Finding]:
        """Rows of no batch at all: they name one that never was or, where rows name none, none holds them."""
        async with one_moment(self.engine) as connection:
            return await self.look_for_orphans(connection, stream, FINDINGS_PER_AUDIT)

    async def look_for_orphans(self, connection: AsyncConnection, stream: StreamName, most: int) -> list[Finding]:
        """The same in a transaction of the caller's, which sees one moment."""
        if stream.is_snapshot:
            return []
        if stream is StreamName.RESULTS and self.network is Network.RESPONSE:
            return [
                self._orphan(stream, 1, 0, item, "neither sealed nor waiting to be")
                for item in await unsealed_results(connection, most)
            ]
        found: list[Finding] = []
        newest = await newest_stored(connection, self.network, stream)
        for epoch, sequence in await places_of_no_batch(connection, self.network, stream, most):
            if 1 <= sequence <= newest.get(epoch, 0):
                continue  # there was such a batch: it is missing, and its rows may well be right
            ids = await rows_at(connection, stream, epoch, sequence, most - len(found))
            found += [self._orphan(stream, epoch, sequence, item, "no batch holds it") for item in ids]
            if len(found) >= most:
                break
        return found

    def _orphan(self, stream: StreamName, epoch: int, sequence: int, request_id: UUID, detail: str) -> Finding:
        return Finding(
            network=self.network,
            stream=stream,
            table="results" if stream is StreamName.RESULTS else "requests",
            kind=Kind.EXTRA,
            epoch=max(epoch, 1),
            sequence=sequence,
            request_id=request_id,
            detail=detail,
        )

    async def _take(self, checks: RowChecks, batch: KeptBatch, window: Window, outcome: Audit) -> None:
        stream = checks.stream
        outcome.batches += 1
        outcome.records += batch.records

        def wrong(kind: Kind, detail: str) -> None:
            outcome.findings.append(
                Finding(
                    network=self.network,
                    stream=stream,
                    table="sealed_batches" if stream.sender is self.network else "received_batches",
                    kind=kind,
                    epoch=checks.epoch,
                    sequence=batch.sequence,
                    detail=detail[:500],
                )
            )

        if hash_of(batch.manifest) != batch.hash:
            return wrong(Kind.DIFFERENT, "the manifest is not the one whose hash was stored with it")
        if batch.payload is None:
            if batch.done_at and (checks.now - batch.done_at).total_seconds() > self.retention:
                outcome.past_retention += batch.records
                return None
            return wrong(Kind.MISSING, "the payload was emptied before its time")
        try:
            manifest = Manifest.model_validate_json(batch.manifest)
            large = len(batch.payload) > 256 * 1024
            lines = (
                await asyncio.to_thread(unpack, manifest, batch.payload) if large else unpack(manifest, batch.payload)
            )
        except ValidationError:
            return wrong(Kind.DIFFERENT, "the manifest is none")
        except Malformed as error:
            return wrong(Kind.DIFFERENT, str(error))
        if stream.receiver is self.network and batch.done_at is None:
            outcome.in_flight += batch.records
        elif stream.is_snapshot:
            outcome.agree += batch.records
        else:
            window.add(Part(batch.sequence, batch.first_record, lines, batch.done_at), manifest.raw_bytes)
        return None

    async def _close(self, checks: RowChecks, window: Window, outcome: Audit) -> None:
        if window.parts:
            await checks.check(window, outcome)

    async def _snapshot(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, first: int, outcome: Audit
    ) -> None:
        """Hold the snapshot that callers are shown against the batches that it was put together from."""
        place = await newest_applied_snapshot(connection, stream)
        if place is None or place[0] != epoch or not first <= place[1] <= outcome.through:
            return
        newest = place[1]
        row = await find_snapshot(connection, stream)
        wrong: tuple[Kind, str] | None = None
        if row is None:
            wrong = (Kind.MISSING, "no row")
        elif (row.epoch, row.sequence) != (epoch, newest):
            wrong = (Kind.DIFFERENT, f"of batch {row.epoch}.{row.sequence}, where {epoch}.{newest} was applied")
        else:
            wanted = await snapshot_records(connection, stream, epoch, newest)
            if wanted is not None and row.records != wanted:
                wrong = (Kind.DIFFERENT, "not as in the batch: records")
        if wrong is not None:
            outcome.findings.append(
                Finding(
                    network=self.network,
                    stream=stream,
                    table="snapshots",
                    kind=wrong[0],
                    epoch=epoch,
                    sequence=newest,
                    detail=wrong[1],
                )
            )


def _is_full(outcome: Audit) -> bool:
    return len(outcome.findings) >= FINDINGS_PER_AUDIT or outcome.records >= RECORDS_PER_AUDIT


async def spans(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, sequence: int
) -> list[EpochSpan]:
    """The stream's epochs as this side has them, oldest first, the present one with where it stands."""
    begun = {each.epoch: (each.previous_epoch, each.previous_sequence) for each in await boundaries(connection, stream)}
    stored = await newest_stored(connection, network, stream)
    every = sorted(each for each in {1, epoch, *begun, *stored} if each <= epoch)
    return [
        EpochSpan(
            epoch=each,
            previous_epoch=begun.get(each, (0, 0))[0],
            previous_sequence=begun.get(each, (0, 0))[1],
            through=sequence if each == epoch else stored.get(each, 0),
        )
        for each in every
    ]


async def snapshot_records(connection: AsyncConnection, stream: StreamName, epoch: int, last: int) -> bytes | None:
    """A received snapshot as its batches give it, without what was set aside; None where a payload is gone."""
    batch = await kept_batches(connection, stream.receiver, stream, epoch, last, last)
    if not batch or batch[0].payload is None:
        return None
    try:
        parts = Manifest.model_validate_json(batch[0].manifest).parts
        aside = await quarantined_numbers(connection, stream, epoch, range(last - parts + 1, last + 1))
        good: list[bytes] = []
        for sequence in range(last - parts + 1, last + 1):
            (part,) = await kept_batches(connection, stream.receiver, stream, epoch, sequence, sequence) or (None,)
            if part is None or part.payload is None:
                return None
            lines = unpack(Manifest.model_validate_json(part.manifest), part.payload)
            good += [line for number, line in enumerate(lines, part.first_record) if number not in aside]
    except (ValidationError, Malformed):
        return None
    return b"\n".join(good)
