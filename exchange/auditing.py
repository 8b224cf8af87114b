"""One side's own part of verifying: where its streams end, digests of its batches, and its rows against its batches."""

import asyncio
import hashlib
from dataclasses import dataclass
from typing import ClassVar

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.batch import unpack
from exchange.errors import Malformed
from exchange.expectations import Expectations, Line, Window
from exchange.manifest import Manifest
from exchange.sealed_ids import unsealed_results
from exchange.summaries import (
    BATCHES_PER_AUDIT,
    BATCHES_PER_DIGEST,
    FINDINGS_PER_AUDIT,
    Audit,
    Finding,
    Kind,
    RangeDigest,
    StreamHead,
)
from models.streams import Network, StreamName
from storage.arrivals import find_snapshot
from storage.database import value
from storage.incoming import incoming_stream
from storage.outgoing import outbox_backlog, outgoing_stream
from storage.verification import (
    KeptBatch,
    kept_batches,
    manifest_hashes,
    newest_applied_snapshot,
    one_moment,
    quarantined_numbers,
    range_digest,
    rows_of_no_batch,
)

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
                newest = (out.sequence, out.content.hex()) if stream.is_snapshot and out.content else (None, None)
                place = (out.epoch, out.sequence, out.record, out.hash.hex(), out.applied)
                rest = (pending, out.quarantined, out.stopped)
            else:
                come = await incoming_stream(connection, stream)
                row = await find_snapshot(connection, stream) if stream.is_snapshot else None
                newest = (row.sequence, hashlib.sha256(row.records).hexdigest()) if row else (None, None)
                place = (come.epoch, come.sequence, come.record, come.hash.hex(), come.applied)
                rest = (0, come.quarantined, come.stopped)
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
        outcome = Audit(through=last)
        async with one_moment(self.engine) as connection:
            page = await kept_batches(connection, self.network, stream, epoch, first, last, BATCHES_PER_AUDIT)
            expectations = Expectations(
                connection, self.network, stream, epoch, self.retention, await value(connection, "SELECT now()")
            )
            window = Window()
            for batch in page:
                outcome.through = batch.sequence
                await self._take(expectations, batch, window, outcome)
                if len(window.lines) >= WINDOW_RECORDS or window.raw_bytes >= WINDOW_BYTES:
                    await self._close(expectations, window, outcome)
                    window = Window()
                if len(outcome.findings) >= FINDINGS_PER_AUDIT:
                    break
            await self._close(expectations, window, outcome)
            if stream.is_snapshot and stream.receiver is self.network:
                await self._snapshot(connection, stream, epoch, first, outcome)
        if not page:
            outcome.through = last
        return outcome

    async def strays(self, stream: StreamName) -> list[Finding]:
        """Rows of no batch at all: they name one that is not here or, where rows name none, none holds them."""
        if stream.is_snapshot:
            return []
        table = "results" if stream is StreamName.RESULTS else "requests"
        if table == "results" and self.network is Network.RESPONSE:
            found = [(0, item) for item in await unsealed_results(self.engine, FINDINGS_PER_AUDIT)]
        else:
            async with one_moment(self.engine) as connection:
                found = await rows_of_no_batch(connection, self.network, stream, table, FINDINGS_PER_AUDIT)
        return [
            Finding(
                network=self.network,
                stream=stream,
                table="results" if stream is StreamName.RESULTS else "requests",
                kind=Kind.EXTRA,
                sequence=sequence,
                request_id=request_id,
                detail="no batch holds it",
            )
            for sequence, request_id in found
        ]

    async def _take(self, expectations: Expectations, batch: KeptBatch, window: Window, outcome: Audit) -> None:
        stream = expectations.stream
        outcome.batches += 1
        outcome.records += batch.records
        if batch.payload is None:
            if batch.done_at and (expectations.now - batch.done_at).total_seconds() > self.retention:
                outcome.past_retention += batch.records
            else:
                finding = self._of_batch(stream, batch, Kind.MISSING, "the payload was emptied before its time")
                outcome.findings.append(finding)
            return
        try:
            manifest = Manifest.model_validate_json(batch.manifest)
            large = len(batch.payload) > 256 * 1024
            lines = (
                await asyncio.to_thread(unpack, manifest, batch.payload) if large else unpack(manifest, batch.payload)
            )
        except ValidationError:
            outcome.findings.append(self._of_batch(stream, batch, Kind.DIFFERENT, "the manifest is none"))
            return
        except Malformed as error:
            outcome.findings.append(self._of_batch(stream, batch, Kind.DIFFERENT, str(error)))
            return
        if stream.receiver is self.network and batch.done_at is None:
            outcome.in_flight += batch.records
        elif stream.is_snapshot:
            outcome.agree += batch.records
        else:
            window.batches[batch.sequence] = batch.done_at
            window.lines += [
                Line(batch.sequence, number, body) for number, body in enumerate(lines, batch.first_record)
            ]
            window.raw_bytes += manifest.raw_bytes

    async def _close(self, expectations: Expectations, window: Window, outcome: Audit) -> None:
        if window.batches:
            await expectations.check(window, outcome)

    def _of_batch(self, stream: StreamName, batch: KeptBatch, kind: Kind, detail: str) -> Finding:
        return Finding(
            network=self.network,
            stream=stream,
            table="sealed_batches" if stream.sender is self.network else "received_batches",
            kind=kind,
            sequence=batch.sequence,
            detail=detail[:500],
        )

    async def _snapshot(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, first: int, outcome: Audit
    ) -> None:
        """Hold the snapshot that callers are shown against the batches that it was put together from."""
        newest = await newest_applied_snapshot(connection, stream, epoch)
        if newest is None or not first <= newest <= outcome.through:
            return
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
                    sequence=newest,
                    detail=wrong[1],
                )
            )


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
