"""Delivering a pushed stream: seal what is pending, send what is sealed, believe only receipts, until caught up."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.batch import to_wire
from exchange.concurrency import concurrently
from exchange.errors import Fork, Gap, LinkUnavailable, Malformed, Oversize, StreamStopped
from exchange.link import LinkClient
from exchange.messages import Receipt
from exchange.sealing import Emptied, Sealer
from models.outcomes import DrainOutcome
from models.streams import GENESIS, StreamName
from storage.database import autocommit
from storage.outgoing import (
    OutgoingStream,
    StoredBatch,
    batch_after,
    delivering_run,
    hash_at,
    mark_delivered,
    mark_sent,
    outgoing_stream,
    record_delivering_run,
    seal_as_before,
    seal_less,
    stop_outgoing,
)

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
        self, stream: StreamName, progress: Callable[[DrainOutcome], None], until: float = math.inf
    ) -> DrainOutcome:
        """Seal and send until nothing is left, then, if nothing was sent, say so by a heartbeat.

        ``progress`` is called after each batch. After ``until``, by the monotonic clock, no batch more is sent, and the
        outcome says that there may be ``more``. Raises the `LinkError` that ended it; whatever was sealed waits for the
        next run. A `Fork` stops the stream for good before it is raised.
        """
        outcome = DrainOutcome()
        head = await self._head(stream)
        try:
            await self._drain(stream, head.delivered, progress, until, outcome)
        except Fork as error:
            log.error("delivery.forked", stream=stream, reason=str(error), todo=f"airlock stream new-epoch {stream}")
            async with self.engine.begin() as connection:
                await stop_outgoing(connection, stream, str(error), head.epoch)
            raise
        return outcome

    async def begin(self, stream: StreamName, run: str) -> None:
        """Note which run delivers now. What is in the outbox before this, that run will send."""
        async with autocommit(self.engine) as connection:
            noted = await delivering_run(connection, stream)
        if noted != run:
            async with self.engine.begin() as connection:
                await record_delivering_run(connection, stream, run)

    async def _drain(
        self,
        stream: StreamName,
        position: int,
        progress: Callable[[DrainOutcome], None],
        until: float,
        outcome: DrainOutcome,
    ) -> None:
        """Send batch after batch. While one is on its way the next one is made ready, once the link has taken a batch:
        one that is dead, or refuses its size, finds no more than one sealed.
        """
        rewinds, emptied = 0, Emptied()
        coming: StoredBatch | None = None
        while True:
            batch = coming or await self._next(stream, position, emptied)
            if batch is None and outcome.batches:
                return
            async with concurrently(self._ahead(stream, batch, emptied, outcome)) as ahead:
                try:
                    receipt = await (self._push(stream, batch) if batch else self._beat(stream))
                except Gap as gap:
                    position, rewinds = int(gap.extra.get("expected", 0)) - 1, rewinds + 1
                    coming, emptied = None, Emptied()
                    log.warning("delivery.rewound", stream=stream, to=position + 1, reason=str(gap))
                    if rewinds > MAX_REWINDS:
                        raise LinkUnavailable(
                            f"{stream}: the receiver asked {rewinds} times for earlier batches"
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
            if time.monotonic() > until:
                outcome.more = True
                return
            coming = ahead.result()
            if coming is not None and coming.sequence != position + 1:
                coming = None  # another run was faster

    async def _ahead(
        self, stream: StreamName, batch: StoredBatch | None, emptied: Emptied, outcome: DrainOutcome
    ) -> StoredBatch | None:
        """The batch after one that is on its way, sealed if need be and not marked as sent."""
        if batch is None or not outcome.batches:
            return None
        return await self._next(stream, batch.sequence, emptied, sent=False)

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

    async def _next(self, stream: StreamName, position: int, emptied: Emptied, sent: bool = True) -> StoredBatch | None:
        """The batch after ``position``; where there is none, pending records are sealed first. ``sent``: it goes out
        at once.
        """
        async with self.engine.begin() as connection:
            head = await outgoing_stream(connection, stream)
            if not 0 <= position <= head.sequence:
                raise Fork(f"{stream}: the receiver asks for batch {position + 1}, sealed are {head.sequence}")
            if position == head.sequence:
                await self.sealer.seal_pending(connection, stream, emptied)
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
