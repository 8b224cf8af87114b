"""Pulling a stream whose sender cannot reach us: poll, accept, send the receipt."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.carriers.http import LinkClient
from exchange.concurrency import concurrently
from exchange.errors import Fork, StreamStopped
from exchange.transfer.incoming import incoming_stream, record_heard, stop_incoming
from exchange.transfer.receiving import Receiver
from models.streams import BatchRef, StreamName
from storage.database import autocommit

log = structlog.get_logger(__name__)


Started = Callable[[BatchRef], Coroutine[Any, Any, None]]
"""Called with what was accepted."""


async def _nothing(_batch: BatchRef) -> None:
    """Leave it at that."""


@dataclass(frozen=True)
class Pull:
    """The receiving end of the streams that one network pulls. Safe to run twice, even at the same time."""

    engine: AsyncEngine
    receiver: Receiver
    link: LinkClient

    async def once(self, stream: StreamName, wait: float, most: int = 1, then: Started = _nothing) -> BatchRef | None:
        """Wait up to ``wait`` seconds for the next batch, or for several up to ``most``, and accept them together; None
        when none came.

        The poll itself says how far this side has come; the receipt, which alone lets the sender mark batches
        delivered, follows what was accepted, and again at the next poll's start if it was lost. ``then`` is done beside
        that, with what is new. Raises `LinkError`; a `Fork` stops the stream before it is raised.
        """
        async with autocommit(self.engine) as connection:
            cursor = await incoming_stream(connection, stream)
        if cursor.stopped:
            raise StreamStopped(f"the {stream} stream is stopped: {cursor.stopped}")
        try:
            wires = await self.link.pull(stream, cursor.sequence, wait, most, cursor.epoch, cursor.hash)
        except Fork as error:
            async with self.engine.begin() as connection:
                now = await incoming_stream(connection, stream)
                if (now.epoch, now.sequence) != (cursor.epoch, cursor.sequence):
                    return None  # another poll went on while this one was held up: the answer is to an old question
                await stop_incoming(connection, stream, str(error), cursor.epoch)
            raise
        if not wires:
            async with self.engine.begin() as connection:
                await record_heard(connection, stream, datetime.now(UTC))  # the answer was signed for us
            return None
        acceptance = await self.receiver.accept(stream, *wires)
        if acceptance.repeated:
            await self.link.send_receipt(stream, acceptance.receipt)
            return None
        async with concurrently(then(acceptance.batch)) as begun:
            await self.link.send_receipt(stream, acceptance.receipt)
        await begun
        return acceptance.batch

    async def confirm(self, stream: StreamName) -> None:
        """Send the receipt for what is stored: heals one that was lost between a commit and the answer."""
        async with self.engine.begin() as connection:
            receipt = await self.receiver.receipt(connection, stream)
        if receipt.received:
            await self.link.send_receipt(stream, receipt)
