"""Sealing: committed records become a numbered, chained and signed batch before anything is sent."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.concurrency import in_thread_if_large
from exchange.errors import Oversize, StreamStopped
from exchange.transfer.outgoing import (
    OutgoingStream,
    append_to_outbox,
    lock_sealing,
    outgoing_stream,
    store_sealed,
    take_from_outbox,
)
from exchange.wire.batch import SealedBatch, pack
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS, Manifest, sign_manifest
from exchange.wire.messages import Heartbeat
from models.streams import BatchRef, StreamName


@dataclass
class OutboxCursor:
    """How far one run has emptied the outbox. See `take_from_outbox`."""

    up_to: int = 0
    committed_before: datetime | None = None
    """Records of later transactions are left for the next run; None: all are taken."""


@dataclass(frozen=True)
class Sealer:
    """Seals the batches of one network. Call its methods inside a transaction."""

    keys: LinkKeys
    link_id: str

    async def seal(self, connection: AsyncConnection, stream: StreamName, records: Sequence[bytes]) -> BatchRef:
        """Seal these records as the next batch. Raises `Oversize`, or `StreamStopped` after a fork."""
        await lock_sealing(connection, stream)
        return await self._seal(connection, stream, records)

    async def seal_pending(
        self, connection: AsyncConnection, stream: StreamName, cursor: OutboxCursor | None = None
    ) -> BatchRef | None:
        """Seal the oldest records of the outbox that fit one batch; None if it is empty.

        A caller that empties the outbox batch by batch passes the same ``cursor`` each time.
        """
        await lock_sealing(connection, stream)
        cursor = cursor or OutboxCursor()
        taken = await take_from_outbox(
            connection, stream, MAX_RECORDS, MAX_RAW_BYTES, cursor.up_to, cursor.committed_before
        )
        cursor.up_to = taken.last
        return await self._seal(connection, stream, taken.records) if taken.records else None

    async def seal_snapshot(
        self, connection: AsyncConnection, stream: StreamName, records: Sequence[bytes]
    ) -> list[BatchRef]:
        """Seal a snapshot, in as many parts as it needs, unless it equals the newest sealed one."""
        await lock_sealing(connection, stream)
        content = hashlib.sha256(b"\n".join(records)).digest()
        head = await outgoing_stream(connection, stream)
        if head.content == content:
            return []
        parts = split(records, head.batch_bytes) or [[]]
        return [
            await self._seal(connection, stream, part, number, len(parts), content)
            for number, part in enumerate(parts, start=1)
        ]

    async def enqueue(self, connection: AsyncConnection, stream: StreamName, records: Sequence[bytes]) -> None:
        """Append records to the outbox. Raises `Oversize` for a record that fits no batch."""
        for record in records:
            if len(record) + 1 > MAX_RAW_BYTES:
                raise Oversize(f"a record of {len(record)} bytes does not fit a batch of {MAX_RAW_BYTES}")
        await append_to_outbox(connection, stream, records)

    def heartbeat(self, head: OutgoingStream) -> Heartbeat:
        """The heartbeat for the present end of a stream, to be signed."""
        return Heartbeat(
            link=self.link_id,
            stream=head.stream,
            epoch=head.epoch,
            sequence=head.sequence,
            head=head.hash.hex(),
            key_id=self.keys.key_id,
        )

    async def _seal(
        self,
        connection: AsyncConnection,
        stream: StreamName,
        records: Sequence[bytes],
        part: int = 1,
        parts: int = 1,
        content: bytes | None = None,
    ) -> BatchRef:
        head = await outgoing_stream(connection, stream)
        if head.stopped:
            raise StreamStopped(f"nothing more is sealed on the {stream} stream: {head.stopped}")
        raw_bytes, payload = await in_thread_if_large(sum(map(len, records)), pack, records)
        manifest = Manifest(
            link=self.link_id,
            stream=stream,
            epoch=head.epoch,
            sequence=head.sequence + 1,
            first_record=head.record + 1,
            last_record=head.record + len(records),
            count=len(records),
            part=part,
            parts=parts,
            raw_bytes=raw_bytes,
            payload_bytes=len(payload),
            payload_sha256=hashlib.sha256(payload).hexdigest(),
            previous=head.hash.hex(),
            key_id=self.keys.key_id,
            sealed_at=datetime.now(UTC),
        )
        await store_sealed(connection, SealedBatch(manifest, *sign_manifest(self.keys, manifest), payload), content)
        return BatchRef(stream=stream, epoch=manifest.epoch, sequence=manifest.sequence, records=manifest.count)


def split(records: Sequence[bytes], most: int | None = None) -> list[list[bytes]]:
    """Split records, in order, into lists that each fit one batch of ``most`` bytes. A larger record stands alone.

    Raises `Oversize` for a record that fits no batch.
    """
    runs: list[list[bytes]] = []
    room = 0
    for record in records:
        size = len(record) + 1
        if size > MAX_RAW_BYTES:
            raise Oversize(f"a record of {len(record)} bytes does not fit a batch of {MAX_RAW_BYTES}")
        if not runs or size > room or len(runs[-1]) == MAX_RECORDS:
            runs.append([])
            room = most or MAX_RAW_BYTES
        runs[-1].append(record)
        room -= size
    return runs
