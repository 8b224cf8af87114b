"""Repairing one side from its own stored batches: rows become again what the batch says, byte for byte."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.auditing import Auditor, snapshot_records
from exchange.batch import open_wire, to_wire, unpack
from exchange.errors import Fork, Malformed
from exchange.keys import LinkKeys
from exchange.manifest import Manifest, verify_manifest
from exchange.summaries import Finding, Healed, Kind
from models.requests import RequestRecord
from models.streams import Network, StreamName
from storage.database import notify
from storage.healing import (
    put_arrived_result,
    put_cancellation,
    put_executed_result,
    put_request,
    put_snapshot,
    without_result,
)
from storage.incoming import hold_applying, hold_receiving, incoming_stream
from storage.verification import KeptBatch, delete_row, kept_batches, restore_batch, take_up_again

log = structlog.get_logger(__name__)

Evict = Callable[[UUID, UUID], Awaitable[None]]


async def _nothing_cached(_user_id: UUID, _request_id: UUID) -> None:
    pass


@dataclass(frozen=True)
class Healer:
    """Mends what an `Auditor` of the same side finds. Safe to run twice: it looks anew, and only then changes.

    ``evict`` forgets a result (owner, request) that a cache may still hold as it was.
    """

    engine: AsyncEngine
    auditor: Auditor
    keys: LinkKeys
    evict: Evict = _nothing_cached

    async def repair(self, stream: StreamName, epoch: int, sequence: int, delete_extra: bool) -> Healed:
        """Make the rows of one batch what its records say. Batch 0 stands for rows that no batch holds.

        Raises `LinkError` when the stored batch itself is not what its sender signed: restore that first.
        """
        outcome = Healed()
        if sequence:
            findings = (await self.auditor.audit(stream, epoch, sequence, sequence)).findings
        else:
            findings = await self.auditor.strays(stream)
        if not findings:
            return outcome
        async with self.engine.begin() as connection:
            await hold_applying(connection, stream)
            if delete_extra:
                outcome.deleted = await self._delete([item for item in findings if item.kind is Kind.EXTRA], connection)
            if sequence:
                await self._rebuild(connection, stream, epoch, sequence, findings, outcome)
        for finding in findings:
            log.warning("verification.repaired", batch=f"{stream} {epoch}.{sequence}", found=finding.model_dump_json())
        return outcome

    async def restore(self, stream: StreamName, wire: bytes) -> Healed:
        """Put a received batch back from its sender's original bytes, which must be those that the chain goes on from.

        Raises `LinkError` when they are not; nothing is changed then.
        """
        sealed, _ = open_wire(self.keys, wire)
        manifest = sealed.manifest
        async with self.engine.begin() as connection:
            await hold_receiving(connection, stream)
            cursor = await incoming_stream(connection, stream)
            if manifest.stream is not stream or manifest.epoch != cursor.epoch or manifest.sequence > cursor.sequence:
                raise Malformed(
                    f"batch {manifest.epoch}.{manifest.sequence} of {manifest.stream} was never stored here"
                )
            if manifest.sequence == cursor.sequence:
                wanted = cursor.hash.hex()
            else:
                following = await self._kept(connection, stream, cursor.epoch, manifest.sequence + 1)
                wanted = self._manifest(following).previous
            if sealed.hash.hex() != wanted:
                raise Fork(f"{stream}: the chain goes on from another batch {manifest.sequence} than the one offered")
            batch = KeptBatch(
                manifest.sequence,
                manifest.first_record,
                manifest.count,
                sealed.manifest_bytes,
                sealed.signature,
                sealed.payload,
                None,
            )
            await restore_batch(connection, stream, manifest.epoch, batch, sealed.hash)
        log.warning("verification.restored", batch=f"{stream} {manifest.epoch}.{manifest.sequence}")
        return Healed(rebuilt=1)

    async def sealed(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
        """The bytes of a batch as they crossed, or None where its payload is gone or its parts do not fit."""
        async with self.engine.connect() as connection:
            kept = await kept_batches(connection, self.auditor.network, stream, epoch, sequence, sequence)
        if not kept or kept[0].payload is None:
            return None
        return to_wire(kept[0].manifest, kept[0].signature, kept[0].payload)

    async def _kept(self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> KeptBatch:
        kept = await kept_batches(connection, self.auditor.network, stream, epoch, sequence, sequence)
        if not kept:
            raise Malformed(f"batch {epoch}.{sequence} of {stream} is not stored here: restore it first")
        return kept[0]

    def _manifest(self, batch: KeptBatch) -> Manifest:
        """The manifest, its signature verified once more: what is rebuilt must be what the sender sealed."""
        own = {self.keys.key_id: self.keys.signing.public_key()}
        keys = LinkKeys(self.keys.signing, self.keys.key_id, own | self.keys.trusted)
        return verify_manifest(keys, batch.manifest, batch.signature)

    async def _delete(self, extra: Sequence[Finding], connection: AsyncConnection) -> int:
        deleted = 0
        for finding in extra:
            if finding.request_id is not None:
                deleted += await delete_row(connection, finding.table, finding.request_id)
        return deleted

    async def _rebuild(
        self,
        connection: AsyncConnection,
        stream: StreamName,
        epoch: int,
        sequence: int,
        findings: Sequence[Finding],
        outcome: Healed,
    ) -> None:
        wrong = {item.record: item for item in findings if item.record and item.request_id and item.kind != Kind.EXTRA}
        snapshot = any(item.table == "snapshots" for item in findings)
        if not wrong and not snapshot:
            return
        batch = await self._kept(connection, stream, epoch, sequence)
        manifest = self._manifest(batch)
        if batch.payload is None:
            raise Malformed(f"the payload of batch {epoch}.{sequence} of {stream} is gone: restore it first")
        if snapshot:
            records = await snapshot_records(connection, stream, epoch, sequence)
            if records is None:
                raise Malformed(f"a part of snapshot {epoch}.{sequence} of {stream} is gone: restore it first")
            await put_snapshot(connection, stream, epoch, sequence, manifest.sealed_at, records)
            await notify(connection, f"snapshot {stream}")
            outcome.rebuilt += 1
        lines = unpack(manifest, batch.payload)
        for number, line in enumerate(lines, start=manifest.first_record):
            if number in wrong:
                outcome.rebuilt += await self._put(connection, stream, epoch, sequence, line)
        if stream is StreamName.RESULTS and self.auditor.network is Network.REQUEST:
            await notify(connection, "finished")
        if stream is StreamName.REQUESTS and self.auditor.network is Network.RESPONSE:
            ids = [item.request_id for item in wrong.values() if item.request_id]
            if await without_result(connection, ids):
                await take_up_again(connection, stream, epoch, sequence)
                outcome.taken_up_again = True

    async def _put(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, line: bytes
    ) -> int:
        if stream is StreamName.RESULTS:
            result = orjson.loads(line)
            request_id = UUID(result["request_id"])
            if self.auditor.network is Network.RESPONSE:
                return await put_executed_result(connection, request_id, result, line)
            owner = await put_arrived_result(connection, request_id, result["status"], line, epoch, sequence)
            if owner is None:
                return 0  # its request is gone: nobody could read it
            await self.evict(owner, request_id)
            return 1
        record = RequestRecord.model_validate_json(line)
        if record.kind == "cancellation":
            return await put_cancellation(connection, record.request_id, record.submitted_at)
        return await put_request(connection, record, orjson.dumps(record.params), epoch, sequence)
