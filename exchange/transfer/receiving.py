"""Accepting a batch: verify, check its place in the chain, store it and move the cursor, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.concurrency import in_thread_if_large
from exchange.errors import Fork, Gap, LinkError, Malformed, Oversize, StreamStopped
from exchange.transfer.incoming import (
    IncomingStream,
    ReceivedBatch,
    incoming_stream,
    lock_receiving,
    received_hash,
    record_heard,
    stop_incoming,
    store_received,
)
from exchange.wire.batch import SealedBatch, open_wire
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS, Manifest
from exchange.wire.messages import Heartbeat, Receipt
from models.streams import BatchRef, Network, StreamName
from storage.attendance import RESULTS, attend
from storage.database import notify
from storage.notices import received


@dataclass(frozen=True)
class Acceptance:
    """The accepted batch or batches, and the receipt."""

    batch: BatchRef
    repeated: bool
    """All were stored before; nothing has changed."""
    receipt: Receipt
    starts_import: bool = False
    """Whether the caller must start a run that applies the batch, because no run attends to the stream."""


@dataclass(frozen=True)
class Receiver:
    """The receiving end of one network's incoming streams."""

    engine: AsyncEngine
    keys: LinkKeys
    link_id: str

    async def accept(self, stream: StreamName, *wires: bytes) -> Acceptance:
        """Store consecutive batches up to the first bad one. When this returns, they are on disk.

        Raises a `LinkError` if the first batch is bad. A fork stops the stream before `Fork` is raised. Safe to repeat
        with the same bytes.
        """
        opened = await in_thread_if_large(sum(map(len, wires)), self._open, stream, wires)
        async with self.engine.begin() as connection:
            await lock_receiving(connection, stream)
            cursor = await incoming_stream(connection, stream)
            if opened[0].manifest.epoch < cursor.epoch:
                return await self._accept_from_ended_epoch(connection, cursor, opened[0])
            forked = None if cursor.stopped else await self._fork_reason(connection, cursor, opened[0])
            if forked:
                await stop_incoming(connection, stream, forked)
            elif not cursor.stopped:
                return await self._store(connection, cursor, opened)
        if forked:
            raise Fork(f"{forked}. The stream is stopped until an operator decides", expected=cursor.sequence + 1)
        raise StreamStopped(f"the {stream} stream accepts nothing: {cursor.stopped}")

    def _open(self, stream: StreamName, wires: Sequence[bytes]) -> list[SealedBatch]:
        """Verify each batch by itself, up to the first bad one.

        More than one answer may hold in all is left too, before it is decompressed. Raises `LinkError` if the first
        batch is bad.
        """
        opened: list[SealedBatch] = []
        records = raw_bytes = 0

        def check(manifest: Manifest) -> None:
            self._check_place(stream, manifest)
            if opened and (records + manifest.count > MAX_RECORDS or raw_bytes + manifest.raw_bytes > MAX_RAW_BYTES):
                raise Oversize(f"an answer has {MAX_RECORDS} records and {MAX_RAW_BYTES} bytes of them at most")

        for wire in wires:
            try:
                sealed, _ = open_wire(self.keys, wire, check)
            except LinkError:
                if not opened:
                    raise
                break  # the next poll asks for it again, as its first batch
            opened.append(sealed)
            records, raw_bytes = records + sealed.manifest.count, raw_bytes + sealed.manifest.raw_bytes
        return opened

    def _check_place(self, stream: StreamName, manifest: Manifest) -> None:
        if manifest.link != self.link_id or manifest.stream is not stream:
            raise Malformed(f"a batch of {manifest.link}/{manifest.stream} was sent to {self.link_id}/{stream}")
        if not stream.is_snapshot and (not manifest.count or manifest.parts != 1):
            raise Malformed(f"batch {manifest.sequence} of {stream} is empty, or a part: only snapshots have such")

    async def receipt(self, connection: AsyncConnection, stream: StreamName) -> Receipt:
        """The receipt for the present position of a stream, to be signed."""
        cursor = await incoming_stream(connection, stream)
        return Receipt(
            link=self.link_id,
            stream=stream,
            epoch=cursor.epoch,
            received=cursor.sequence,
            applied=cursor.applied,
            head=cursor.hash.hex(),
            quarantined=cursor.quarantined,
            key_id=self.keys.key_id,
        )

    async def heard(self, stream: StreamName, heartbeat: Heartbeat) -> Receipt:
        """Record a verified heartbeat. Raises `Gap` if the sender has sealed more batches than have arrived, `Fork` if
        its newest batch has another hash than ours, `StreamStopped` if the stream is stopped here.
        """
        async with self.engine.begin() as connection:
            await lock_receiving(connection, stream)
            cursor = await incoming_stream(connection, stream)
            if heartbeat.epoch < cursor.epoch:
                raise Fork(f"{stream}: epoch {heartbeat.epoch} has ended, this side is in epoch {cursor.epoch}")
            await record_heard(connection, stream, heartbeat.issued_at)
            receipt = await self.receipt(connection, stream)
            forked = None
            if heartbeat.epoch > cursor.epoch:
                forked = f"its sender is in epoch {heartbeat.epoch}, this side in epoch {cursor.epoch}"
            elif heartbeat.sequence == cursor.sequence and heartbeat.head != cursor.hash.hex():
                forked = f"batch {cursor.sequence} has another hash at its sender"
            if forked and not cursor.stopped:
                await stop_incoming(connection, stream, forked)
        if forked and not cursor.stopped:
            raise Fork(f"{stream}: {forked}. The stream is stopped until an operator decides")
        if cursor.stopped:
            raise StreamStopped(f"the {stream} stream accepts nothing: {cursor.stopped}")
        if heartbeat.sequence > cursor.sequence:
            raise Gap(
                f"{stream}: the sender has sealed {heartbeat.sequence}, here {cursor.sequence} arrived",
                expected=cursor.sequence + 1,
            )
        return receipt

    async def _accept_from_ended_epoch(
        self, connection: AsyncConnection, cursor: IncomingStream, sealed: SealedBatch
    ) -> Acceptance:
        """Acknowledge a late copy of a stored batch. Any other is refused, without stopping the stream."""
        manifest, stream = sealed.manifest, cursor.stream
        if await received_hash(connection, stream, manifest.epoch, manifest.sequence) != sealed.hash:
            raise Fork(
                f"{stream}: epoch {manifest.epoch} has ended without batch {manifest.sequence},"
                f" this side is in epoch {cursor.epoch}"
            )
        ref = BatchRef(stream=stream, epoch=manifest.epoch, sequence=manifest.sequence, records=manifest.count)
        return Acceptance(ref, True, await self.receipt(connection, stream))

    async def _fork_reason(
        self, connection: AsyncConnection, cursor: IncomingStream, sealed: SealedBatch
    ) -> str | None:
        """Why this batch belongs to another history than ours; None if it belongs to ours."""
        manifest = sealed.manifest
        if manifest.epoch > cursor.epoch:
            return f"the batch is of epoch {manifest.epoch}, this side is in epoch {cursor.epoch}"
        if manifest.sequence <= cursor.sequence:
            known = await received_hash(connection, cursor.stream, manifest.epoch, manifest.sequence)
            if known != sealed.hash:
                return f"batch {manifest.sequence} of {cursor.stream} came again with other bytes"
        elif manifest.sequence == cursor.sequence + 1:
            if manifest.previous != cursor.hash.hex():
                return f"batch {manifest.sequence} of {cursor.stream} does not continue the batch stored before it"
            if manifest.first_record != cursor.record + 1:
                return f"batch {manifest.sequence} of {cursor.stream} starts at record {manifest.first_record}"
        return None

    async def _store(
        self, connection: AsyncConnection, cursor: IncomingStream, opened: Sequence[SealedBatch]
    ) -> Acceptance:
        """Store the new ones of these batches, as far as each continues the previous one."""
        stream, newest = cursor.stream, opened[0].manifest
        if newest.sequence > cursor.sequence + 1:
            raise Gap(
                f"{stream}: batch {newest.sequence} came, {cursor.sequence + 1} is the next one expected",
                expected=cursor.sequence + 1,
            )
        fresh: list[SealedBatch] = []
        for sealed in opened:
            manifest = sealed.manifest
            if await self._fork_reason(connection, cursor, sealed) or manifest.sequence > cursor.sequence + 1:
                break  # the next poll asks for it again, as its first batch
            if manifest.sequence == cursor.sequence + 1:
                fresh.append(sealed)
                cursor = replace(cursor, sequence=manifest.sequence, record=manifest.last_record, hash=sealed.hash)
            newest = manifest
        if fresh:
            newest = fresh[-1].manifest
            await store_received(connection, stream, [(_received(sealed), sealed.hash) for sealed in fresh])
            await notify(connection, received(stream))
        ref = BatchRef(
            stream=stream,
            epoch=newest.epoch,
            sequence=newest.sequence,
            records=sum(sealed.manifest.count for sealed in fresh) or newest.count,
            first=fresh[0].manifest.sequence if len(fresh) > 1 else None,
        )
        starts_import = bool(fresh) and await _starts_import(connection, ref)
        return Acceptance(ref, not fresh, await self.receipt(connection, stream), starts_import)


async def _starts_import(connection: AsyncConnection, batch: BatchRef) -> bool:
    """Whether this batch needs a new run: every snapshot does, results only if no run attends to them.

    The new run counts as attending from now on, so that the next batch does not start another one.
    """
    if batch.stream is StreamName.RESULTS:
        return await attend(connection, RESULTS, batch.workflow_id("apply"))
    return batch.stream.receiver is Network.REQUEST


def _received(sealed: SealedBatch) -> ReceivedBatch:
    manifest = sealed.manifest
    return ReceivedBatch(
        manifest.epoch,
        manifest.sequence,
        manifest.first_record,
        manifest.count,
        sealed.manifest_bytes,
        sealed.signature,
        sealed.payload,
    )
