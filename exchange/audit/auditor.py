"""The audit of one side: where its streams end, digests of its batches, and its rows compared with its batches."""

import hashlib
import time
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.audit.row_checks import Part, RowChecks, Window
from exchange.audit.stored_rows import (
    BatchRow,
    batch_row,
    batch_rows,
    manifest_hashes,
    newest_applied_snapshot,
    newest_stored,
    range_digest,
    repeatable_read,
    rows_at,
    unknown_places,
)
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
    Table,
)
from exchange.audit.unsealed_results import unsealed_results
from exchange.concurrency import in_thread_if_large
from exchange.errors import Malformed
from exchange.transfer.epoch_store import boundaries, first_void
from exchange.transfer.incoming import IncomingStream, incoming_stream
from exchange.transfer.outgoing import OutgoingStream, outbox_backlog, outgoing_stream
from exchange.transfer.quarantine_store import count_quarantined, quarantined_numbers
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest, hash_of
from fulfilment.result_store import find_snapshot
from models.streams import Network, StreamName
from storage.database import value

WINDOW_RECORDS = 5000
WINDOW_BYTES = 8 * 1024 * 1024
"""Batches are compared together until they have this many records or bytes."""


@dataclass(frozen=True)
class Auditor:
    """A `Side` on this network's own database. Only reads. ``retention`` in seconds."""

    engine: AsyncEngine
    network: Network
    retention: float
    live: ClassVar[bool] = True

    async def head(self, stream: StreamName) -> StreamHead:
        """The end of the stream here."""
        async with self.engine.begin() as connection:  # not read-only: a stream's row is inserted at its first use
            now = await value(connection, "SELECT now()")
            end: OutgoingStream | IncomingStream
            pending, snapshot = 0, None
            if stream.sender is self.network:
                end = out = await outgoing_stream(connection, stream)
                pending, _ = await outbox_backlog(connection, stream)
                quarantined = out.quarantined
                if out.sequence and out.content:
                    snapshot = (out.sequence, out.content.hex())
            else:
                end = await incoming_stream(connection, stream)
                quarantined = await count_quarantined(connection, stream)
                row = await find_snapshot(connection, stream) if stream.is_snapshot else None
                if row is not None and row.epoch == end.epoch:
                    snapshot = (row.sequence, hashlib.sha256(row.records).hexdigest())
            epochs = await spans(connection, self.network, stream, end.epoch, end.sequence)
        return StreamHead(
            network=self.network,
            stream=stream,
            epoch=end.epoch,
            sequence=end.sequence,
            record=end.record,
            hash=end.hash.hex(),
            applied=end.applied,
            pending=pending,
            quarantined=quarantined,
            stopped=end.stopped,
            epochs=epochs,
            snapshot_sequence=snapshot[0] if snapshot else None,
            snapshot_sha256=snapshot[1] if snapshot else None,
            read_at=now,
        )

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        """The digest of a range of at most `BATCHES_PER_DIGEST` batches."""
        async with self.engine.connect() as connection:
            last = min(last, first + BATCHES_PER_DIGEST - 1)
            count, digest = await range_digest(connection, self.network, stream, epoch, first, last)
        return RangeDigest(count=count, digest=digest)

    async def hashes(self, stream: StreamName, epoch: int, first: int, last: int) -> dict[int, str]:
        """The hash of each manifest of a range, by batch number."""
        async with self.engine.connect() as connection:
            return await manifest_hashes(connection, self.network, stream, epoch, first, last)

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        """Check the payloads of the next batches of a range, and the rows that their records should have produced."""
        async with repeatable_read(self.engine) as connection:
            return await self.audit_in(connection, stream, epoch, first, last)

    async def audit_in(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, first: int, last: int
    ) -> Audit:
        """`audit` in the caller's `repeatable_read` transaction."""
        outcome, until = Audit(through=last), time.monotonic() + SECONDS_PER_AUDIT
        if stream.sender is self.network and (void := await first_void(connection, stream, epoch)) is not None:
            last = min(last, void - 1)  # records of void batches were sealed again, or replaced by the receiver's
        page = await batch_rows(connection, self.network, stream, epoch, first, last, BATCHES_PER_AUDIT)
        checks = RowChecks(
            connection, self.network, stream, epoch, self.retention, await value(connection, "SELECT now()")
        )
        window = Window()
        for batch in page:
            outcome.through = batch.sequence
            await self._check_batch(checks, batch, window, outcome)
            if window.records >= WINDOW_RECORDS or window.raw_bytes >= WINDOW_BYTES:
                await checks.check(window, outcome)
                window = Window()
            if _is_full(outcome) or time.monotonic() > until:
                break
        if window.parts:
            await checks.check(window, outcome)
        if stream.is_snapshot and stream.receiver is self.network:
            await self._check_snapshot(connection, stream, epoch, first, outcome)
        return outcome

    async def orphans(self, stream: StreamName) -> list[Finding]:
        """Rows without a batch: they name one that never existed or, where rows name none, no batch holds them."""
        async with repeatable_read(self.engine) as connection:
            return await self.orphans_in(connection, stream, FINDINGS_PER_AUDIT)

    async def orphans_in(self, connection: AsyncConnection, stream: StreamName, most: int) -> list[Finding]:
        """`orphans` in the caller's `repeatable_read` transaction."""
        if stream.is_snapshot:
            return []

        def orphan(epoch: int, sequence: int, request_id: UUID, detail: str) -> Finding:
            table: Table = "results" if stream is StreamName.RESULTS else "requests"
            return self._finding(stream, table, Kind.EXTRA, max(epoch, 1), sequence, detail, request_id)

        if stream is StreamName.RESULTS and self.network is Network.RESPONSE:
            unsealed = await unsealed_results(connection, most)
            return [orphan(1, 0, item, "neither sealed nor waiting to be") for item in unsealed]
        found: list[Finding] = []
        newest = await newest_stored(connection, self.network, stream)
        for epoch, sequence in await unknown_places(connection, self.network, stream, most):
            if 1 <= sequence <= newest.get(epoch, 0):
                continue  # the batch existed: it is missing, and its rows may be right
            ids = await rows_at(connection, stream, epoch, sequence, most - len(found))
            found += [orphan(epoch, sequence, item, "no batch holds it") for item in ids]
            if len(found) >= most:
                break
        return found

    def _finding(
        self,
        stream: StreamName,
        table: Table,
        kind: Kind,
        epoch: int,
        sequence: int,
        detail: str,
        request_id: UUID | None = None,
    ) -> Finding:
        return Finding(
            network=self.network,
            stream=stream,
            table=table,
            kind=kind,
            epoch=epoch,
            sequence=sequence,
            request_id=request_id,
            detail=detail[:500],
        )

    async def _check_batch(self, checks: RowChecks, batch: BatchRow, window: Window, outcome: Audit) -> None:
        """Check a batch by itself, and add its records to the window that is compared with rows."""
        stream = checks.stream
        outcome.batches += 1
        outcome.records += batch.records

        def wrong(kind: Kind, detail: str) -> None:
            table: Table = "sealed_batches" if stream.sender is self.network else "received_batches"
            outcome.findings.append(self._finding(stream, table, kind, checks.epoch, batch.sequence, detail))

        if hash_of(batch.manifest) != batch.hash:
            return wrong(Kind.DIFFERENT, "the manifest is not the one whose hash was stored with it")
        if batch.payload is None:
            if batch.done_at and (checks.now - batch.done_at).total_seconds() > self.retention:
                outcome.past_retention += batch.records
                return None
            return wrong(Kind.MISSING, "the payload was deleted before the end of its retention")
        try:
            manifest = Manifest.model_validate_json(batch.manifest)
            lines = await in_thread_if_large(len(batch.payload), unpack, manifest, batch.payload)
        except ValidationError:
            return wrong(Kind.DIFFERENT, "the manifest does not parse")
        except Malformed as error:
            return wrong(Kind.DIFFERENT, str(error))
        if stream.receiver is self.network and batch.done_at is None:
            outcome.in_flight += batch.records
        elif stream.is_snapshot:
            outcome.agree += batch.records
        else:
            window.add(Part(batch.sequence, batch.first_record, lines, batch.done_at), manifest.raw_bytes)
        return None

    async def _check_snapshot(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, first: int, outcome: Audit
    ) -> None:
        """Compare the snapshot in force with its batches."""
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
            outcome.findings.append(self._finding(stream, "snapshots", wrong[0], epoch, newest, wrong[1]))


def _is_full(outcome: Audit) -> bool:
    return len(outcome.findings) >= FINDINGS_PER_AUDIT or outcome.records >= RECORDS_PER_AUDIT


async def spans(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, sequence: int
) -> list[EpochSpan]:
    """The stream's epochs on this side, oldest first."""
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
    """The records of a received snapshot by its batches, without quarantined ones; None if a payload is gone."""
    newest = await batch_row(connection, stream.receiver, stream, epoch, last)
    if newest is None:
        return None
    try:
        parts = Manifest.model_validate_json(newest.manifest).parts
        good: list[bytes] = []
        for sequence in range(last - parts + 1, last + 1):
            part = await batch_row(connection, stream.receiver, stream, epoch, sequence)
            if part is None or part.payload is None:
                return None
            aside = await quarantined_numbers(connection, stream, epoch, part.first_record, part.records)
            lines = unpack(Manifest.model_validate_json(part.manifest), part.payload)
            good += [line for number, line in enumerate(lines, part.first_record) if number not in aside]
    except (ValidationError, Malformed):
        return None
    return b"\n".join(good)
