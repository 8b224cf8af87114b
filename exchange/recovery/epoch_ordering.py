"""An operator's new epoch, ordered from the response network: what each side has lost comes back, then both begin."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.audit.auditor import Auditor
from exchange.audit.kept_rows import kept_batches
from exchange.audit.summaries import Side, StreamHead
from exchange.recovery.epochs import ReceivingEnd, Resealed, SendingEnd
from exchange.recovery.remote_side import RemoteSide
from exchange.transfer.epoch_store import received_places
from exchange.transfer.incoming import received_hash, stop_incoming
from exchange.transfer.outgoing import hash_at, stop_outgoing
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from exchange.wire.messages import EpochOrder
from models.outcomes import EpochOutcome
from models.streams import GENESIS, Network, StreamName
from models.wording import counted

Say = Callable[[str], None]
"""Called with a sentence at each step."""


@dataclass(frozen=True)
class EpochOrdering:
    """Orders new epochs. Every step may be repeated: where it was interrupted, ordering again begins one more epoch."""

    engine: AsyncEngine
    near: Auditor
    far: RemoteSide
    sealer: Sealer
    say: Say = lambda _: None

    async def order(self, stream: StreamName, reason: str, ordered_by: str, accept_loss: bool = False) -> EpochOutcome:
        """Begin a new epoch of this stream on both sides.

        Raises `LinkError` when the request network cannot be asked, before anything has changed; `Conflict` when
        records would be lost that are not given up by ``accept_loss``.
        """
        near, far = await self.near.head(stream), await self.far.head(stream)
        await self._stop(stream, near)
        self.say(f"{stream} rests: the response network is at {_place(near)}, the request network at {_place(far)}")
        previous = await self._common(stream, near, far)
        self.say(f"the last batch that both have is {previous[0]}.{previous[1]}")
        order = EpochOrder(
            link=self.sealer.link_id,
            stream=stream,
            epoch=max(near.epoch, far.epoch) + 1,
            head=(await self._hash(stream, previous)).hex(),
            key_id=self.sealer.keys.key_id,
            previous_epoch=previous[0],
            previous_sequence=previous[1],
            reason=reason,
            ordered_by=ordered_by,
            accept_loss=accept_loss,
        )
        outcome = EpochOutcome(
            stream=stream, epoch=order.epoch, previous_epoch=previous[0], previous_sequence=previous[1]
        )
        if stream.sender is Network.RESPONSE:
            await self._send_anew(order, far, outcome)
        else:
            await self._receive_anew(order, outcome)
        self.say(f"{stream} goes on in epoch {order.epoch}")
        return outcome

    async def _send_anew(self, order: EpochOrder, far: StreamHead, outcome: EpochOutcome) -> None:
        """A pushed stream: first its receiver begins, so that nothing of the old epoch gets in any more."""
        stream = order.stream
        end = SendingEnd(self.engine, self.sealer)
        async with self.engine.connect() as connection:
            await end.losses(connection, order)
        await self.far.link.order_epoch(stream, order)
        if stream is StreamName.RESULTS:
            async for place in self._places_there(order, far):
                wire = await self.far.stored(stream, *place)
                if wire is None:
                    self.say(f"batch {place[0]}.{place[1]} is past retention there: its results stay as they are")
                    continue
                outcome.taken_back += await end.adopt(stream, place, wire)
            if outcome.taken_back:
                results = counted(outcome.taken_back, "result")
                self.say(f"back from the request network: {results} that only it still had")
        _count(await end.begin(order), outcome)

    async def _receive_anew(self, order: EpochOrder, outcome: EpochOutcome) -> None:
        """The pulled stream: its sender begins first, with what it lost given back to it."""
        stream = order.stream
        async with self.engine.connect() as connection:
            places = await received_places(connection, stream, order.previous)
        for epoch, sequence in places:
            async with self.engine.connect() as connection:
                (batch,) = await kept_batches(connection, Network.RESPONSE, stream, epoch, sequence, sequence)
            if batch.payload is None:
                self.say(f"batch {epoch}.{sequence} is past retention here: it cannot be given back")
                continue
            await self.far.link.give_back(stream, to_wire(batch.manifest, batch.signature, batch.payload))
            outcome.given_back += batch.records
        if outcome.given_back:
            records = counted(outcome.given_back, "record")
            self.say(f"given back to the other side: {records} that only this side still had")
        await self.far.link.order_epoch(stream, order)
        receiver = Receiver(self.engine, self.sealer.keys, self.sealer.link_id)
        await ReceivingEnd(self.engine, receiver).begin(order)

    async def _stop(self, stream: StreamName, near: StreamHead) -> None:
        """Nothing more is sealed or accepted until the new epoch has begun."""
        reason = "a new epoch was ordered and has not begun: order it again"
        async with self.engine.begin() as connection:
            if stream.sender is Network.RESPONSE:
                await stop_outgoing(connection, stream, reason, near.epoch)
            else:
                await stop_incoming(connection, stream, reason, near.epoch)

    async def _common(self, stream: StreamName, near: StreamHead, far: StreamHead) -> tuple[int, int]:
        """The newest batch with the same hash on both sides. A hash covers all batches before: halving finds it."""
        epoch = min(near.epoch, far.epoch)
        least, beyond = 0, 1 + min(head.sequence for head in (near, far) if head.epoch == epoch)
        while beyond - least > 1:
            middle = (least + beyond) // 2
            if await self._same(stream, epoch, middle):
                least = middle
            else:
                beyond = middle
        return epoch, least

    async def _same(self, stream: StreamName, epoch: int, sequence: int) -> bool:
        async def seen(side: Side) -> tuple[int, str]:
            found = await side.digest(stream, epoch, sequence, sequence)
            return found.count, found.digest

        here, there = await seen(self.near), await seen(self.far)
        return here[0] == 1 and here == there

    async def _hash(self, stream: StreamName, place: tuple[int, int]) -> bytes:
        find = hash_at if stream.sender is Network.RESPONSE else received_hash
        async with self.engine.connect() as connection:
            return await find(connection, stream, *place) or GENESIS

    async def _places_there(self, order: EpochOrder, far: StreamHead) -> AsyncIterator[tuple[int, int]]:
        """Batches that the request network says it received after the last common one."""
        for epoch in range(order.previous_epoch, far.epoch + 1):
            first = order.previous_sequence + 1 if epoch == order.previous_epoch else 1
            while (await self.far.digest(order.stream, epoch, first, first)).count:
                yield epoch, first
                first += 1


def _place(head: StreamHead) -> str:
    return f"{head.epoch}.{head.sequence}"


def _count(resealed: Resealed, outcome: EpochOutcome) -> None:
    outcome.resealed_batches, outcome.resealed, outcome.lost = resealed.batches, resealed.records, resealed.lost
