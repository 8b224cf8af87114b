"""Pulling a stream, whose sender opens no connections: poll, accept, send the receipt."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.carriers.http import LinkClient
from exchange.concurrency import concurrently
from exchange.errors import Fork, StreamStopped
from exchange.transfer.incoming import count_unapplied_records, incoming_stream, record_heard, stop_incoming
from exchange.transfer.receiving import Receiver
from models.streams import BatchRef, StreamName
from storage.database import autocommit

MOST_UNAPPLIED = 100_000
"""No more is pulled while so many records are stored and not applied: what comes faster waits at its sender."""
FULL_SECONDS = 1.0

Started = Callable[[BatchRef], Coroutine[Any, Any, None]]
"""Called with the batches that were accepted."""


async def _nothing(_batch: BatchRef) -> None:
    """The default of `Pull.once`."""


@dataclass(frozen=True)
class Pull:
    """The receiving end of pulled streams. Safe to run twice, even at the same time."""

    engine: AsyncEngine
    receiver: Receiver
    link: LinkClient

    async def once(self, stream: StreamName, wait: float, most: int = 1, then: Started = _nothing) -> BatchRef | None:
        """Wait up to ``wait`` seconds for the next batches, accept up to ``most`` of them; None if there is none.

        The receipt is sent after acceptance, concurrently with ``then``, which is called with the new batches. If the
        receipt is lost, `confirm` sends it again. Raises `LinkError`. A `Fork` stops the stream before it is raised.
        """
        async with autocommit(self.engine) as connection:
            cursor = await incoming_stream(connection, stream)
            waiting = await count_unapplied_records(connection, stream)
        if cursor.stopped:
            raise StreamStopped(f"the {stream} stream is stopped: {cursor.stopped}")
        if waiting >= MOST_UNAPPLIED:
            await asyncio.sleep(min(wait, FULL_SECONDS))
            return None
        try:
            wires = await self.link.pull(stream, cursor.sequence, wait, most, cursor.epoch, cursor.hash)
        except Fork as error:
            async with self.engine.begin() as connection:
                now = await incoming_stream(connection, stream)
                if (now.epoch, now.sequence) != (cursor.epoch, cursor.sequence):
                    return None  # another poll has moved the cursor meanwhile: the answer is out of date
                await stop_incoming(connection, stream, str(error), cursor.epoch)
            raise
        if not wires:
            async with self.engine.begin() as connection:
                await record_heard(connection, stream, datetime.now(UTC))  # a signed answer is a sign of life
            return None
        acceptance = await self.receiver.accept(stream, *wires)
        if acceptance.repeated:
            await self.link.send_receipt(stream, acceptance.receipt)
            return None
        async with concurrently(then(acceptance.batch)) as started:
            await self.link.send_receipt(stream, acceptance.receipt)
        await started
        return acceptance.batch

    async def confirm(self, stream: StreamName) -> None:
        """Send the receipt for the stored batches again, in case an earlier one was lost."""
        async with self.engine.begin() as connection:
            receipt = await self.receiver.receipt(connection, stream)
        if receipt.received:
            await self.link.send_receipt(stream, receipt)
