"""Ordering a new epoch from the response network: each side gets back what it has lost, then both sides begin."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from exchange.audit.auditor import Auditor
from exchange.audit.stored_rows import batch_row
from exchange.audit.summaries import Side, StreamHead
from exchange.errors import BadSignature, Malformed, UnknownKey, UnsupportedVersion
from exchange.recovery.epochs import ReceivingEnd, SendingEnd
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

MOST_EPOCHS_AHEAD = 100
"""So many epochs a side restored from a backup may be behind. More is a lie, or another link's database."""
MOST_GONE, MOST_SAID = 100, 5
"""Batches in a row that the request network claims and cannot show: then no more are asked for, or told."""


@dataclass(frozen=True)
class EpochOrdering:
    """Orders new epochs. After an interruption, order again: this begins one more epoch.

    ``say`` is called with a sentence at each step.
    """

    local: Auditor
    remote: RemoteSide
    sealer: Sealer
    say: Callable[[str], None] = lambda _: None

    async def order(
        self,
        stream: StreamName,
        reason: str,
        ordered_by: str,
        accept_loss: bool = False,
        discard_since: datetime | None = None,
    ) -> EpochOutcome:
        """Begin a new epoch of this stream on both sides.

        ``discard_since``: requests that arrived here since then are not given back to the request network, because
        they were invented while it was captured. Raises `LinkError`, before anything has changed, if the request
        network does not answer or names an absurd place; `Conflict` if records would be lost without ``accept_loss``.
        """
        local, remote = await self.local.head(stream), await self.remote.head(stream)
        if remote.epoch > local.epoch + MOST_EPOCHS_AHEAD:
            raise Malformed(
                f"the request network claims epoch {remote.epoch} of {stream}, this side is in epoch {local.epoch}:"
                " restore that network first"
            )
        await self._stop(stream, local)
        self.say(
            f"{stream} is stopped: the response network is at {local.epoch}.{local.sequence},"
            f" the request network at {remote.epoch}.{remote.sequence}"
        )
        previous = await self._last_common(stream, local, remote)
        self.say(f"the last batch that both have is {previous[0]}.{previous[1]}")
        order = EpochOrder(
            link=self.sealer.link_id,
            stream=stream,
            epoch=max(local.epoch, remote.epoch) + 1,
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
            await self._begin_pushed(order, remote, outcome)
        else:
            await self._begin_pulled(order, outcome, discard_since)
        self.say(f"{stream} continues in epoch {order.epoch}")
        return outcome

    async def _begin_pushed(self, order: EpochOrder, remote: StreamHead, outcome: EpochOutcome) -> None:
        """The receiver begins first, so that it accepts no more batches of the old epoch."""
        stream = order.stream
        end = SendingEnd(self.local.engine, self.sealer)
        async with self.local.engine.connect() as connection:
            await end.losses(connection, order)
        await self.remote.link.order_epoch(stream, order)
        if stream is StreamName.RESULTS:
            for epoch in range(order.previous_epoch, remote.epoch + 1):
                first = order.previous_sequence + 1 if epoch == order.previous_epoch else 1
                through = max((span.through for span in remote.epochs if span.epoch == epoch), default=0)
                outcome.taken_back += await self._take_back(end, stream, epoch, first, through)
            if outcome.taken_back:
                results = counted(outcome.taken_back, "result")
                self.say(f"taken back from the request network: {results} that only it still had")
        resealed = await end.begin(order)
        outcome.resealed_batches, outcome.resealed, outcome.lost = resealed.batches, resealed.records, resealed.lost

    async def _take_back(self, end: SendingEnd, stream: StreamName, epoch: int, first: int, through: int) -> int:
        """Take back the results of the batches from ``first`` to ``through``, newest first. Returns how many.

        The request network says how many it has, so this ends after `MOST_GONE` in a row that it cannot show: past
        retention, or never there.
        """
        taken, gone = 0, 0
        for sequence in range(through, first - 1, -1):
            wire = await self.remote.stored(stream, epoch, sequence)
            try:
                if wire is not None:
                    taken, gone = taken + await end.adopt(stream, (epoch, sequence), wire), 0
                    continue
                reason = "past retention there: its results stay as they are"
            except (Malformed, UnknownKey, BadSignature, UnsupportedVersion) as error:
                reason = f"not ours: {error}"
            gone += 1
            if gone <= MOST_SAID:
                self.say(f"batch {epoch}.{sequence} is {reason}")
            if gone == MOST_GONE:
                self.say(f"{gone} batches before {epoch}.{through} could not be taken back: the rest is not asked for")
                break
        return taken

    async def _begin_pulled(self, order: EpochOrder, outcome: EpochOutcome, discard_since: datetime | None) -> None:
        """The sender begins first, after it has got back the batches that it lost."""
        stream, engine = order.stream, self.local.engine
        async with engine.connect() as connection:
            places = await received_places(connection, stream, order.previous, discard_since)
        for epoch, sequence in places:
            async with engine.connect() as connection:
                batch = await batch_row(connection, Network.RESPONSE, stream, epoch, sequence)
            if batch is None or batch.payload is None:
                self.say(f"batch {epoch}.{sequence} is past retention here: it cannot be given back")
                continue
            try:
                await self.remote.link.give_back(stream, to_wire(batch.manifest, batch.signature, batch.payload))
            except Malformed as error:
                self.say(f"batch {epoch}.{sequence} is not taken back there: {error}")
                continue
            outcome.given_back += batch.records
        if outcome.given_back:
            records = counted(outcome.given_back, "record")
            self.say(f"given back to the request network: {records} that only this side still had")
        await self.remote.link.order_epoch(stream, order)
        await ReceivingEnd(engine, Receiver(engine, self.sealer.keys, self.sealer.link_id)).begin(order)

    async def _stop(self, stream: StreamName, local: StreamHead) -> None:
        """Stop sealing or accepting until the new epoch has begun."""
        reason = "a new epoch was ordered and has not begun: order it again"
        stop = stop_outgoing if stream.sender is Network.RESPONSE else stop_incoming
        async with self.local.engine.begin() as connection:
            await stop(connection, stream, reason, local.epoch)

    async def _last_common(self, stream: StreamName, local: StreamHead, remote: StreamHead) -> tuple[int, int]:
        """The newest batch with the same hash on both sides, by bisection: a hash covers all batches before."""
        epoch = min(local.epoch, remote.epoch)
        least, beyond = 0, 1 + min(head.sequence for head in (local, remote) if head.epoch == epoch)
        while beyond - least > 1:
            middle = (least + beyond) // 2
            if await self._same(stream, epoch, middle):
                least = middle
            else:
                beyond = middle
        return epoch, least

    async def _same(self, stream: StreamName, epoch: int, sequence: int) -> bool:
        sides: tuple[Side, Side] = (self.local, self.remote)
        here, there = [await side.digest(stream, epoch, sequence, sequence) for side in sides]
        return here.count == 1 and here == there

    async def _hash(self, stream: StreamName, place: tuple[int, int]) -> bytes:
        find = hash_at if stream.sender is Network.RESPONSE else received_hash
        async with self.local.engine.connect() as connection:
            return await find(connection, stream, *place) or GENESIS
