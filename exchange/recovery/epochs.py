"""Beginning a new epoch at one side: the history goes on after the last batch that both sides have.

Only an operator of the response network begins one, by an `EpochOrder`. What the sender sealed after that batch is
void, and its records are sealed again; a record that the receiver has already comes with the same bytes, which is no
news there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.errors import Fork, Malformed
from exchange.recovery.repaired_rows import put_executed_result, put_request
from exchange.transfer.epoch_store import (
    begin_receiving,
    begin_sending,
    boundaries,
    emptied_after,
    record_epoch,
    sealed_between,
    void_sealed,
)
from exchange.transfer.incoming import incoming_stream, lock_applying, lock_receiving, received_hash
from exchange.transfer.outgoing import (
    append_to_outbox,
    hash_at,
    lock_sealing,
    outgoing_stream,
    take_back_from_outbox,
    take_from_outbox,
    take_results_back_from_outbox,
)
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer, split
from exchange.wire.batch import SealedBatch, open_wire, unpack
from exchange.wire.keys import keys_of_sender
from exchange.wire.manifest import MAX_RAW_BYTES, MAX_RECORDS, Manifest
from exchange.wire.messages import EpochOrder, Receipt
from fulfilment.request_store import missing_requests, store_group
from models.errors import Conflict
from models.requests import RequestRecord
from models.streams import GENESIS, BatchRef, StreamName
from models.wording import counted
from storage.database import notify

log = structlog.get_logger(__name__)


@dataclass
class Resealed:
    """What the sender's new epoch began with; records ``lost`` were past retention and could not be sealed again."""

    batches: int = 0
    records: int = 0
    lost: int = 0


@dataclass(frozen=True)
class SendingEnd:
    """A sender's end, as it begins anew. ``adopted`` are results that the receiver showed to have already."""

    engine: AsyncEngine
    sealer: Sealer
    adopted: set[UUID] = field(default_factory=set)

    async def begin(self, order: EpochOrder) -> Resealed:
        """Void what was sealed after the batch that the order names and seal its records again, all in one transaction.

        Raises `Fork` when that batch is another one here, `Conflict` when records would be lost that the order does not
        give up. Doing it twice changes nothing more.
        """
        stream, previous = order.stream, order.previous
        outcome = Resealed()
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            head = await outgoing_stream(connection, stream)
            if await _begun(connection, order, head.epoch):
                return outcome
            _check_place(order, await hash_at(connection, stream, *previous))
            outcome.lost = await self.losses(connection, order)
            await record_epoch(connection, stream, order.epoch, previous, order.reason, order.ordered_by)
            await begin_sending(connection, stream, order.epoch)
            if not stream.is_snapshot:
                async for batch in sealed_between(connection, stream, previous, order.epoch):
                    if batch.payload is not None:
                        lines = unpack(Manifest.model_validate_json(batch.manifest), batch.payload)
                        await self._seal_again(connection, stream, self._wanted(stream, lines), outcome)
                if stream is StreamName.REQUESTS:
                    await self._seal_recovered(connection, stream, outcome)
            await void_sealed(connection, stream, previous, order.epoch)
            await notify(connection, f"sealed {stream}")
        log.warning("epoch.begun", stream=stream, epoch=order.epoch, reason=order.reason, ordered_by=order.ordered_by)
        return outcome

    async def losses(self, connection: AsyncConnection, order: EpochOrder) -> int:
        """Records that cannot be sealed again; raises `Conflict` unless the order gives them up."""
        if order.stream.is_snapshot:
            return 0
        batches, lost = await emptied_after(connection, order.stream, order.previous)
        if lost and not order.accept_loss:
            raise Conflict(
                f"{counted(lost, 'record')} in {counted(batches, 'batch')} of {order.stream} cannot be sent again:"
                " past retention here, and the receiver does not have it. Restore a backup, or go on without it with"
                " --accept-loss"
            )
        return lost

    async def adopt(self, stream: StreamName, place: tuple[int, int], wire: bytes) -> int:
        """Take the results of the batch at a place back that this side sealed and has lost; gives how many there were.

        They are what their requests' owners were shown: they take the place of any other result that was made since,
        in the table and in the outbox. Raises `LinkError` when the bytes are not what this side once sealed.
        """
        sealed, lines = self._opened(stream, wire)
        if (sealed.manifest.epoch, sealed.manifest.sequence) != place:
            raise Malformed(f"another batch was given back than {place[0]}.{place[1]} of {stream}")
        results = {UUID(str((loaded := orjson.loads(line))["request_id"])): (loaded, line) for line in lines}
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await take_results_back_from_outbox(connection, list(results))
            for request_id, (loaded, line) in results.items():
                await put_executed_result(connection, request_id, loaded, line)
            await append_to_outbox(connection, stream, [line for _, line in results.values()])
        self.adopted.update(results)
        return len(results)

    async def recover(self, stream: StreamName, wire: bytes) -> int:
        """Take requests back that this side sealed and has lost: they wait in the outbox for the next epoch.

        Raises `LinkError` when the bytes are not what this side once sealed.
        """
        _, lines = self._opened(stream, wire)
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await take_back_from_outbox(connection, stream, lines)
            await append_to_outbox(connection, stream, lines)
        return len(lines)

    def _opened(self, stream: StreamName, wire: bytes) -> tuple[SealedBatch, list[bytes]]:
        sealed, lines = open_wire(keys_of_sender(self.sealer.keys, stream, stream.sender), wire)  # our own alone
        if (sealed.manifest.link, sealed.manifest.stream) != (self.sealer.link_id, stream):
            raise Malformed(f"a batch of {sealed.manifest.link}/{sealed.manifest.stream} was given back as {stream}")
        return sealed, lines

    def _wanted(self, stream: StreamName, lines: Sequence[bytes]) -> list[bytes]:
        """Without results that were adopted: those are in the outbox."""
        if stream is not StreamName.RESULTS or not self.adopted:
            return list(lines)
        return [line for line in lines if UUID(str(orjson.loads(line)["request_id"])) not in self.adopted]

    async def _seal_again(
        self, connection: AsyncConnection, stream: StreamName, lines: Sequence[bytes], outcome: Resealed
    ) -> None:
        most = (await outgoing_stream(connection, stream)).batch_bytes
        for part in split(lines, most):
            batch = await self.sealer.seal(connection, stream, part)
            outcome.batches, outcome.records = outcome.batches + 1, outcome.records + batch.records
            if stream is StreamName.REQUESTS:
                await self._move(connection, batch, part)

    async def _seal_recovered(self, connection: AsyncConnection, stream: StreamName, outcome: Resealed) -> None:
        """Requests given back that are not here any more, and every cancellation."""
        while lines := (await take_from_outbox(connection, stream, MAX_RECORDS, MAX_RAW_BYTES)).records:
            records = [(RequestRecord.model_validate_json(line), line) for line in lines]
            wanted = await missing_requests(connection, [record.request_id for record, _ in records])
            again = [line for record, line in records if record.kind != "request" or record.request_id in wanted]
            await self._seal_again(connection, stream, again, outcome)

    async def _move(self, connection: AsyncConnection, batch: BatchRef, lines: Sequence[bytes]) -> None:
        """The requests' group is the new batch, so that their status and their workflow follow it."""
        for line in lines:
            record = RequestRecord.model_validate_json(line)
            if record.kind == "request":
                await put_request(connection, record, orjson.dumps(record.params), batch)
        await store_group(connection, batch, len(lines))


@dataclass(frozen=True)
class ReceivingEnd:
    """A receiver's end, as it begins anew. What it has received stays applied."""

    engine: AsyncEngine
    receiver: Receiver

    async def begin(self, order: EpochOrder) -> Receipt:
        """Expect batch 1 of the new epoch. Raises `Fork` when the batch before is another one here; idempotent."""
        stream = order.stream
        async with self.engine.begin() as connection:
            await lock_receiving(connection, stream)
            await lock_applying(connection, stream)
            cursor = await incoming_stream(connection, stream)
            if not await _begun(connection, order, cursor.epoch):
                _check_place(order, await received_hash(connection, stream, *order.previous))
                await record_epoch(connection, stream, order.epoch, order.previous, order.reason, order.ordered_by)
                await begin_receiving(connection, stream, order.epoch)
            receipt = await self.receiver.receipt(connection, stream)
        log.warning("epoch.begun", stream=stream, epoch=order.epoch, reason=order.reason, ordered_by=order.ordered_by)
        return receipt


async def _begun(connection: AsyncConnection, order: EpochOrder, present: int) -> bool:
    """Whether exactly this was done before. Raises `Fork` when the epoch is not a new one."""
    if order.epoch > present:
        return False
    for known in await boundaries(connection, order.stream):
        same = (order.epoch, order.previous_epoch, order.previous_sequence, order.reason)
        if (known.epoch, known.previous_epoch, known.previous_sequence, known.reason) == same:
            return True
    raise Fork(f"{order.stream}: epoch {order.epoch} cannot begin, this side is in epoch {present}")


def _check_place(order: EpochOrder, here: bytes | None) -> None:
    if (here or GENESIS).hex() != order.head or (order.previous_sequence and here is None):
        raise Fork(
            f"{order.stream}: batch {order.previous_epoch}.{order.previous_sequence} is another one here;"
            " order the new epoch again"
        )
