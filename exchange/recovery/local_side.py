"""Repairing one network's own database: rows from their stored batch, and a batch from the other side's copy.

Nothing is destroyed. A row that belongs to no batch is moved into `set_aside`, in the transaction that found it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.auditor import Auditor, snapshot_records
from exchange.audit.stored_rows import (
    BatchRow,
    batch_row,
    is_conflict,
    mark_unapplied,
    newest_stored,
    repeatable_read,
)
from exchange.audit.summaries import Finding, Kind, Repaired
from exchange.errors import Fork, Malformed
from exchange.recovery.orphans import batches_without_result, set_rows_aside
from exchange.recovery.repaired_rows import (
    put_arrived_result,
    put_cancellation,
    put_executed_result,
    put_request,
    put_snapshot,
    restore_received,
    restore_sealed,
    seal_snapshot_anew,
    without_result,
)
from exchange.transfer.incoming import incoming_stream, lock_receiving
from exchange.transfer.outgoing import lock_sealing, outgoing_stream
from exchange.transfer.quarantine_store import quarantine
from exchange.wire.batch import SealedBatch, open_wire, to_wire, unpack
from exchange.wire.keys import LinkKeys, keys_of_sender
from exchange.wire.manifest import Manifest, hash_of, verify_manifest
from execution.answer import to_json
from models.requests import RequestRecord
from models.streams import GENESIS, BatchRef, Network, StreamName
from storage.database import notify

log = structlog.get_logger(__name__)

ORPHANS_PER_REPAIR = 2000
ATTEMPTS = 5
"""How often a repair is tried again if rows change meanwhile. Then it is left for the next repair."""

Evict = Callable[[UUID, UUID], Awaitable[None]]
CachedResult = tuple[UUID, UUID]
"""Owner and request of a result that a cache may hold."""


async def _nothing_cached(_user_id: UUID, _request_id: UUID) -> None:
    pass


@dataclass(frozen=True)
class LocalSide(Auditor):
    """A `RepairableSide`. Safe to run twice: each repair compares first, and changes only what differs then.

    ``evict`` removes a result (owner, request) from the cache.
    """

    keys: LinkKeys
    evict: Evict = _nothing_cached

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
        """The original bytes of a batch sealed or received here; None if it or its payload is gone."""
        async with self.engine.connect() as connection:
            batch = await batch_row(connection, self.network, stream, epoch, sequence)
        if batch is None or batch.payload is None:
            return None
        return to_wire(batch.manifest, batch.signature, batch.payload)

    async def restore(self, stream: StreamName, wire: bytes) -> Repaired:
        """Put back a batch from its original bytes.

        Raises `LinkError`, and changes nothing, unless its sender signed them and the next batch follows them.
        """
        sealed, _ = open_wire(keys_of_sender(self.keys, stream, self.network), wire)
        manifest = sealed.manifest
        if manifest.stream is not stream:
            raise Malformed(f"a batch of {manifest.stream} came for {stream}")
        sends = stream.sender is self.network
        async with self.engine.begin() as connection:
            await (lock_sealing if sends else lock_receiving)(connection, stream)
            await self._check_chain(connection, sealed)
            await (restore_sealed if sends else restore_received)(connection, sealed)
        log.warning("verification.restored", batch=f"{stream} {manifest.epoch}.{manifest.sequence}")
        return Repaired(rebuilt=1)

    async def seal_anew(self, stream: StreamName) -> None:
        """Make the next export seal the snapshot even if it is unchanged."""
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await seal_snapshot_anew(connection, stream)

    async def repair(self, stream: StreamName, epoch: int, sequence: int) -> Repaired:
        """Rebuild the rows of one batch from its records, and set aside rows that it does not hold.

        Batch 0 stands for rows that belong to no batch: each call sets aside some, the last one none. Raises
        `LinkError` if the stored batch is not what its sender signed: restore it first.
        """
        for _ in range(ATTEMPTS):
            done, cached = Repaired(), list[CachedResult]()
            try:
                # PostgreSQL refuses to change a row that has changed since this transaction began.
                async with repeatable_read(self.engine) as connection:
                    if sequence:
                        findings = (await self.audit_in(connection, stream, epoch, sequence, sequence)).findings
                        cached += await self._rebuild(connection, stream, epoch, sequence, findings, done)
                    else:
                        findings = await self.orphans_in(connection, stream, ORPHANS_PER_REPAIR)
                    cached += await self._set_aside(connection, findings, done)
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                continue
            for user_id, request_id in cached:
                await self.evict(user_id, request_id)
            return done
        return Repaired()

    async def _set_aside(
        self, connection: AsyncConnection, findings: Sequence[Finding], done: Repaired
    ) -> list[CachedResult]:
        extra = [item for item in findings if item.kind is Kind.EXTRA]
        cached: list[CachedResult] = []
        for table in sorted({item.table for item in extra}):
            reasons = {
                item.request_id: f"batch {item.epoch}.{item.sequence} of {item.stream}: {item.detail}"
                for item in extra
                if item.table == table and item.request_id
            }
            moved = await set_rows_aside(connection, table, reasons)
            done.set_aside += len(moved)
            log.warning("verification.set_aside", table=table, rows=len(moved), first=str(next(iter(reasons))))
            if table != "results":
                continue
            cached += [(owner, request_id) for request_id, owner in moved if owner]
            if self.network is Network.RESPONSE:
                # The requests need a result that is sealed: execute them again.
                for batch in await batches_without_result(connection, [request_id for request_id, _ in moved]):
                    await mark_unapplied(connection, batch.stream, batch.epoch, batch.sequence)
                    done.taken_up_again = True
        return cached

    async def _rebuild(
        self,
        connection: AsyncConnection,
        stream: StreamName,
        epoch: int,
        sequence: int,
        findings: Sequence[Finding],
        done: Repaired,
    ) -> list[CachedResult]:
        if not any(item.is_row for item in findings):
            return []
        batch = await self._batch(connection, stream, epoch, sequence)
        manifest = self._signed_manifest(stream, batch)
        wrong = [item for item in findings if item.is_row and item.kind is not Kind.EXTRA]
        for finding in wrong:
            log.warning("verification.repaired", batch=f"{stream} {epoch}.{sequence}", found=finding.model_dump_json())
        cached: list[CachedResult] = []
        if wrong and stream.is_snapshot:
            await self._rebuild_snapshot(connection, manifest)
            done.rebuilt += 1
        elif wrong:
            if batch.payload is None:
                raise Malformed(f"the payload of batch {epoch}.{sequence} of {stream} is gone: restore it first")
            lines = unpack(manifest, batch.payload)
            place = BatchRef(stream=stream, epoch=epoch, sequence=sequence)
            numbers = {item.record for item in wrong}
            for number, line in enumerate(lines, start=manifest.first_record):
                if number not in numbers:
                    continue
                try:
                    done.rebuilt += await self._put(connection, place, line, cached)
                except (ValueError, KeyError, TypeError) as error:  # a hostile record: nothing can be rebuilt from it
                    why = str(error).splitlines()[0]
                    if stream.receiver is self.network:
                        await quarantine(connection, place, [(number, line, f"cannot be rebuilt: {why}")])
                        done.rebuilt += 1
            if stream is StreamName.RESULTS and self.network is Network.REQUEST:
                await notify(connection, "finished")
            ids = [item.request_id for item in wrong if item.request_id]
            executes = stream is StreamName.REQUESTS and self.network is Network.RESPONSE
            if executes and await without_result(connection, ids):
                await mark_unapplied(connection, stream, epoch, sequence)
                done.taken_up_again = True
        return cached

    async def _rebuild_snapshot(self, connection: AsyncConnection, manifest: Manifest) -> None:
        stream, epoch, sequence = manifest.stream, manifest.epoch, manifest.sequence
        records = await snapshot_records(connection, stream, epoch, sequence)
        if records is None:
            raise Malformed(f"a part of snapshot {epoch}.{sequence} of {stream} is gone: restore it first")
        await put_snapshot(connection, stream, epoch, sequence, manifest.sealed_at, records)
        await notify(connection, f"snapshot {stream}")

    async def _put(self, connection: AsyncConnection, batch: BatchRef, line: bytes, cached: list[CachedResult]) -> int:
        if batch.stream is StreamName.RESULTS:
            result = orjson.loads(line)
            request_id = UUID(result["request_id"])
            if self.network is Network.RESPONSE:
                return await put_executed_result(connection, request_id, result, line)
            owner = await put_arrived_result(connection, request_id, result["status"], line, batch)
            if owner is None:
                return 0  # its request is gone, so nobody can read it
            cached.append((owner, request_id))
            return 1
        record = RequestRecord.model_validate_json(line)
        if record.kind == "cancellation":
            return await put_cancellation(connection, record.request_id, record.submitted_at)
        return await put_request(connection, record, to_json(record.params), batch)

    async def _check_chain(self, connection: AsyncConnection, sealed: SealedBatch) -> None:
        """Raise `LinkError` unless this batch was stored here and the next one follows it."""
        manifest = sealed.manifest
        stream, epoch, sequence = manifest.stream, manifest.epoch, manifest.sequence
        head = await (outgoing_stream if stream.sender is self.network else incoming_stream)(connection, stream)
        newest = head.sequence
        if epoch != head.epoch:
            newest = (await newest_stored(connection, self.network, stream)).get(epoch, 0)
        if epoch > head.epoch or (epoch == head.epoch and sequence > newest):
            raise Malformed(f"batch {epoch}.{sequence} of {stream} was never stored here")
        if (epoch, sequence) == (head.epoch, head.sequence):
            genuine = sealed.hash == head.hash
        elif sequence < newest:
            following = await self._batch(connection, stream, epoch, sequence + 1)
            genuine = sealed.hash.hex() == self._signed_manifest(stream, following).previous
        elif (here := await batch_row(connection, self.network, stream, epoch, sequence)) is not None:
            genuine = sealed.hash == here.hash
        else:
            # The missing last batch of an ended epoch: check that it follows the batch before it.
            before = GENESIS
            if sequence > 1:
                before = hash_of((await self._batch(connection, stream, epoch, sequence - 1)).manifest)
            genuine = manifest.previous == before.hex()
        if not genuine:
            raise Fork(f"{stream}: the chain goes on from another batch {epoch}.{sequence} than the one offered")

    def _signed_manifest(self, stream: StreamName, batch: BatchRow) -> Manifest:
        """Parse a manifest and verify its signature again, since rows are rebuilt from it."""
        return verify_manifest(keys_of_sender(self.keys, stream, self.network), batch.manifest, batch.signature)

    async def _batch(self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> BatchRow:
        batch = await batch_row(connection, self.network, stream, epoch, sequence)
        if batch is None:
            raise Malformed(f"batch {epoch}.{sequence} of {stream} is not stored here: restore it first")
        return batch
