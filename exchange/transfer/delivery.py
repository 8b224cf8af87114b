"""Delivering a pushed stream: seal what is pending, send what is sealed, believe only receipts, until caught up."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

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
"""Smaller batches than this are not sealed, whatever is refused on the way."""
MAX_REWINDS = 3
"""Times in one run that the receiver may ask for an earlier batch, before something must be wrong there."""


@dataclass(frozen=True)
class Delivery:
    """The sending end of the streams that one network pushes.

    Safe to run twice, even at the same time: the receiver acknowledges a batch that it has without taking it again, and
    what is delivered only ever grows.
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
        """Seal and send until nothing is left or it may not go on; where nothing was sent, say so by a ``heartbeat``.

        ``progress`` is called after each batch. With ``until_now``, records that are committed after this moment are
        left for the next run. Raises the `LinkError` that ended it; what was sealed waits for the next run. A `Fork`
        stops the stream for good before it is raised.
        """
        outcome = DrainOutcome()
        head = await self._head(stream)
        try:
            cursor = OutboxCursor(committed_before=await self._now() if until_now else None)
            await self._drain(stream, head.delivered, progress, may_go_on, heartbeat, cursor, outcome)
        except Fork as error:
            log.error("delivery.forked", stream=stream, reason=str(error), todo=f"airlock stream new-epoch {stream}")
            async with self.engine.begin() as connection:
                await stop_outgoing(connection, stream, str(error), head.epoch)
            raise
        return outcome

    async def _now(self) -> datetime:
        async with autocommit(self.engine) as connection:
            found: datetime = await value(connection, "SELECT now()")
        return found

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
        """Send batch after batch. While one is on its way the next one is made ready, once the link has taken a batch:
        one that is dead, or refuses its size, finds no more than one sealed.
        """
        rewinds = 0
        coming: StoredBatch | None = None
        while True:
            batch = coming or await self._next(stream, position, cursor)
            if batch is None and (outcome.batches or not heartbeat):
                return
            async with concurrently(self._ahead(stream, batch, cursor, outcome)) as ahead:
                try:
                    receipt = await (self._push(stream, batch) if batch else self._beat(stream))
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
                await self._believe(stream, batch, receipt, None if ahead.exception() else ahead.result())
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

    async def _ahead(
        self, stream: StreamName, batch: StoredBatch | None, cursor: OutboxCursor, outcome: DrainOutcome
    ) -> StoredBatch | None:
        """The batch after one that is on its way, sealed if need be and not marked as sent."""
        if batch is None or not outcome.batches:
            return None
        return await self._next(stream, batch.sequence, cursor, sent=False)

    async def _believe(
        self, stream: StreamName, batch: StoredBatch | None, receipt: Receipt, following: StoredBatch | None
    ) -> None:
        """Take a receipt over, and note that the batch which follows goes out now."""
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
        self, stream: StreamName, position: int, cursor: OutboxCursor, sent: bool = True
    ) -> StoredBatch | None:
        """The batch after ``position``; where there is none, pending records are sealed first. ``sent``: it goes out
        at once.
        """
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
            if receipt.received >= batch.sequence:  # another run delivered it while this one was held up
                return receipt
            raise Fork(f"{stream}: batch {batch.sequence} is wanted again, but its payload is past retention")
        wire = to_wire(batch.manifest, batch.signature, batch.payload)
        try:
            return await self.link.push(stream, wire)
        except Oversize as error:
            less = max(LEAST_BATCH_BYTES, batch.raw_bytes // 2)
            async with self.engine.begin() as connection:
                await seal_less(connection, stream, less)
            raise Oversize(
                f"{stream}: batch {batch.sequence} has {len(wire)} bytes and is refused on its way ({error}). What is"
                f" not sealed yet goes in batches of {less} bytes; this one needs a higher limit there, or: airlock"
                f" stream new-epoch {stream}, which seals its records again in smaller ones"
            ) from error

    async def _beat(self, stream: StreamName) -> Receipt:
        return await self.link.heartbeat(stream, self.sealer.heartbeat(await self._head(stream)))


async def accept_receipt(connection: AsyncConnection, stream: StreamName, receipt: Receipt) -> OutgoingStream:
    """Mark delivered what a verified receipt covers, in the caller's transaction; gives the stream as it was before.

    Raises `Fork` when its head is not the hash of our batch of that number, or it is of another epoch: the receiver has
    another history.
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
    await mark_delivered(
        connection, stream, head.epoch, receipt.received, receipt.applied, receipt.quarantined, receipt.issued_at
    )
    return head
