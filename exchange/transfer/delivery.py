"""Delivering a pushed stream: seal pending records and send sealed batches. Only a receipt marks them delivered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.carriers.http import LinkClient
from exchange.concurrency import concurrently
from exchange.errors import Fork, Gap, LinkUnavailable, Malformed, Oversize, StreamStopped
from exchange.transfer.outgoing import (
    OutgoingStream,
    StoredBatch,
    batch_after,
    hash_at,
    mark_delivered,
    mark_sent,
    outgoing_stream,
    seal_as_before,
    seal_less,
    stop_outgoing,
)
from exchange.transfer.sealing import OutboxCursor, Sealer
from exchange.wire.batch import to_wire
from exchange.wire.messages import Receipt
from models.outcomes import DrainOutcome
from models.streams import GENESIS, StreamName
from models.wording import counted
from storage.database import autocommit, value

log = structlog.get_logger(__name__)

LEAST_BATCH_BYTES = 64 * 1024
"""The limit for batches is never lowered below this."""
MOST_QUARANTINED = 1_000_000
"""More cannot be in quarantine: a stream stops long before."""
MAX_REWINDS = 3
"""How often in one run the receiver may ask for an earlier batch."""


@dataclass(frozen=True)
class Delivery:
    """The sending end of pushed streams.

    Safe to run twice, even at the same time: the receiver acknowledges a batch that it has without storing it again,
    and the delivered position only grows.
    """

    engine: AsyncEngine
    sealer: Sealer
    link: LinkClient

    async def drain(
        self,
        stream: StreamName,
        progress: Callable[[DrainOutcome], None],
        may_go_on: Callable[[], bool] = lambda: True,
        heartbeat: bool = True,
        until_now: bool = False,
    ) -> DrainOutcome:
        """Seal and send batches until none is left or ``may_go_on`` is false.

        ``progress`` is called after each batch. With ``heartbeat``, one is sent if there is no batch. With
        ``until_now``, records committed after this moment are left for the next run. Raises the `LinkError` that ended
        the run; sealed batches wait for the next one. A `Fork` stops the stream before it is raised.
        """
        outcome, cursor = DrainOutcome(), OutboxCursor()
        head = await self._head(stream)
        if until_now:
            async with autocommit(self.engine) as connection:
                cursor.committed_before = await value(connection, "SELECT now()")
        try:
            await self._drain(stream, head.delivered, progress, may_go_on, heartbeat, cursor, outcome)
        except Fork as error:
            log.error("delivery.forked", stream=stream, reason=str(error), todo=f"airlock stream new-epoch {stream}")
            async with self.engine.begin() as connection:
                await stop_outgoing(connection, stream, str(error), head.epoch)
            raise
        return outcome

    async def _drain(
        self,
        stream: StreamName,
        position: int,
        progress: Callable[[DrainOutcome], None],
        may_go_on: Callable[[], bool],
        heartbeat: bool,
        cursor: OutboxCursor,
        outcome: DrainOutcome,
    ) -> None:
        """Send batch after batch. The next one is sealed while one is being sent, but only after the first batch was
        delivered: while the link is dead, or refuses the size, no more than one batch is sealed.
        """
        rewinds = 0
        coming: StoredBatch | None = None
        while True:
            batch = coming or await self._next(stream, position, cursor)
            if batch is None and (outcome.batches or not heartbeat):
                return
            after = batch.sequence if batch and outcome.batches else None
            async with concurrently(self._next(stream, after, cursor, sent=False)) as ahead:
                try:
                    receipt = await (self._push(stream, batch) if batch else self._send_heartbeat(stream))
                except Gap as gap:
                    position, rewinds = int(gap.extra.get("expected", 0)) - 1, rewinds + 1
                    coming, cursor.up_to = None, 0
                    log.warning("delivery.rewound", stream=stream, to=position + 1, reason=str(gap))
                    if rewinds > MAX_REWINDS:
                        raise LinkUnavailable(
                            f"{stream}: the receiver asked {counted(rewinds, 'time')} for earlier batches"
                        ) from gap
                    continue
                await asyncio.wait((ahead,))
                await self._accept(stream, batch, receipt, None if ahead.exception() else ahead.result())
            position = receipt.received
            if batch is None:
                outcome.heartbeat = True
                return
            outcome.batches += 1
            outcome.records += batch.records
            outcome.payload_bytes += len(batch.payload or b"")
            progress(outcome)
            if not may_go_on():
                return
            coming = ahead.result()
            if coming is not None and coming.sequence != position + 1:
                coming = None  # another run was faster

    async def _accept(
        self, stream: StreamName, batch: StoredBatch | None, receipt: Receipt, following: StoredBatch | None
    ) -> None:
        """Apply a receipt, and mark the following batch as sent."""
        async with self.engine.begin() as connection:
            head = await accept_receipt(connection, stream, receipt)
            if batch is not None and head.batch_bytes is not None:
                await seal_as_before(connection, stream, batch.raw_bytes)
            if following is not None:
                await mark_sent(connection, stream, following.epoch, following.sequence)
        if batch is not None and receipt.received < batch.sequence:
            raise Malformed(
                f"{stream}: batch {batch.sequence} was taken, but the receipt covers batch {receipt.received}"
            )

    async def _head(self, stream: StreamName) -> OutgoingStream:
        async with autocommit(self.engine) as connection:
            head = await outgoing_stream(connection, stream)
        if head.stopped:
            raise StreamStopped(f"the {stream} stream is stopped: {head.stopped}")
        return head

    async def _next(
        self, stream: StreamName, position: int | None, cursor: OutboxCursor, sent: bool = True
    ) -> StoredBatch | None:
        """The batch after ``position``; seals pending records if there is none. ``sent``: mark it as sent."""
        if position is None:
            return None
        async with self.engine.begin() as connection:
            head = await outgoing_stream(connection, stream)
            if not 0 <= position <= head.sequence:
                raise Fork(f"{stream}: the receiver asks for batch {position + 1}, sealed are {head.sequence}")
            if position == head.sequence:
                await self.sealer.seal_pending(connection, stream, cursor)
            batch = await batch_after(connection, stream, head.epoch, position)
            if batch is not None and sent:
                await mark_sent(connection, stream, batch.epoch, batch.sequence)
        return batch

    async def _push(self, stream: StreamName, batch: StoredBatch) -> Receipt:
        if batch.payload is None:
            receipt = await self.link.state(stream)
            if receipt.received >= batch.sequence:  # another run has delivered it meanwhile
                return receipt
            raise Fork(f"{stream}: the receiver asks again for batch {batch.sequence}, whose payload is past retention")
        wire = to_wire(batch.manifest, batch.signature, batch.payload)
        try:
            return await self.link.push(stream, wire)
        except Oversize as error:
            less = max(LEAST_BATCH_BYTES, batch.raw_bytes // 2)
            async with self.engine.begin() as connection:
                await seal_less(connection, stream, less)
            raise Oversize(
                f"{stream}: batch {batch.sequence} has {len(wire)} bytes and was refused ({error}). New batches have at"
                f" most {less} bytes. To deliver this one, raise the limit there, or run: airlock stream new-epoch"
                f" {stream}, which seals its records again in smaller batches"
            ) from error

    async def _send_heartbeat(self, stream: StreamName) -> Receipt:
        return await self.link.heartbeat(stream, self.sealer.heartbeat(await self._head(stream)))


async def accept_receipt(connection: AsyncConnection, stream: StreamName, receipt: Receipt) -> OutgoingStream:
    """Mark the batches of a verified receipt as delivered. Returns the sender's position before that.

    Raises `Fork` if the receipt names another epoch, or another hash than our batch of that number has; `Malformed`,
    and nothing changes, if its numbers cannot be true.
    """
    head = await outgoing_stream(connection, stream)
    if receipt.epoch != head.epoch or receipt.received > head.sequence:
        raise Fork(
            f"{stream}: the receiver stands at {receipt.epoch}.{receipt.received},"
            f" sealed are {head.epoch}.{head.sequence}"
        )
    ours = await hash_at(connection, stream, head.epoch, receipt.received) if receipt.received else GENESIS
    if ours is None or ours.hex() != receipt.head:
        raise Fork(f"{stream}: the receiver's batch {receipt.received} has another hash than the one sealed here")
    if receipt.applied > receipt.received or receipt.quarantined > MOST_QUARANTINED:
        raise Malformed(
            f"{stream}: a receipt cannot be true: {receipt.received} batches stored, {receipt.applied} applied,"
            f" {receipt.quarantined} records in quarantine"
        )
    await mark_delivered(
        connection, stream, head.epoch, receipt.received, receipt.applied, receipt.quarantined, receipt.issued_at
    )
    return head
