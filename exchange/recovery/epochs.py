"""Beginning a new epoch on one side, after the last batch that both sides have.

An operator of the response network orders it by an `EpochOrder`. Batches that the sender sealed after that batch become
void, and their records are sealed again. A record that the receiver already has comes with the same bytes and changes
nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

import orjson
import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.audit.row_checks import result_named
from exchange.errors import BadSignature, Fork, Malformed, UnknownKey
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
    StoredBatch,
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
from execution.answer import to_json
from fulfilment.request_store import missing_requests, store_group
from models.errors import Conflict
from models.foreign_text import cleaned
from models.requests import RequestRecord
from models.streams import GENESIS, BatchRef, StreamName
from models.wording import counted
from storage.database import notify

log = structlog.get_logger(__name__)


@dataclass
class Resealed:
    """Batches and records sealed again in a new epoch. ``lost``: records that were past retention."""

    batches: int = 0
    records: int = 0
    lost: int = 0


@dataclass(frozen=True)
class SendingEnd:
    """Begins an epoch at its sender. ``adopted``: results that were taken back from the receiver."""

    engine: AsyncEngine
    sealer: Sealer
    adopted: set[UUID] = field(default_factory=set)

    async def begin(self, order: EpochOrder) -> Resealed:
        """Make the batches after the ordered place void and seal their records again, in one transaction. Idempotent.

        Raises `Fork` if the batch at that place has another hash here, `Conflict` if records would be lost without
        the order accepting it.
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
                        lines = _lines_of(order, batch, batch.payload, outcome)
                        await self._seal_again(connection, stream, self._wanted(stream, lines), outcome)
                if stream is StreamName.REQUESTS:
                    await self._seal_recovered(connection, stream, outcome)
            await void_sealed(connection, stream, previous, order.epoch)
            await notify(connection, f"sealed {stream}")
        log.warning("epoch.begun", stream=stream, epoch=order.epoch, reason=order.reason, ordered_by=order.ordered_by)
        return outcome

    async def losses(self, connection: AsyncConnection, order: EpochOrder) -> int:
        """How many records cannot be sealed again. Raises `Conflict` unless the order accepts the loss."""
        if order.stream.is_snapshot:
            return 0
        batches, lost = await emptied_after(connection, order.stream, order.previous)
        if lost and not order.accept_loss:
            raise Conflict(
                f"{counted(lost, 'record')} in {counted(batches, 'batch')} of {order.stream} cannot be sent again: past"
                " retention here, and missing at the receiver. Restore a backup, or accept the loss: --accept-loss"
            )
        return lost

    async def adopt(self, stream: StreamName, place: tuple[int, int], wire: bytes) -> int:
        """Take back the results of a batch that this side sealed and has lost. Returns how many there are.

        The requests' owners have seen them, so they replace any newer result, in the table and in the outbox. Raises
        `LinkError` if this side did not seal these bytes.
        """
        sealed, lines = self._opened(stream, wire)
        if (sealed.manifest.epoch, sealed.manifest.sequence) != place:
            raise Malformed(f"the batch given back is not {place[0]}.{place[1]} of {stream}")
        results = {named[0]: (orjson.loads(line), line) for line in lines if (named := result_named(line))}
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await take_results_back_from_outbox(connection, list(results))
            for request_id, (loaded, line) in results.items():
                await put_executed_result(connection, request_id, loaded, line)
            await append_to_outbox(connection, stream, [line for _, line in results.values()])
        self.adopted.update(results)
        return len(results)

    async def recover(self, stream: StreamName, wire: bytes) -> int:
        """Take back requests that this side sealed and has lost. They wait in the outbox for the next epoch.

        Records that are no requests are left out: whoever had this network's key may have sealed anything, and their
        receiver has set them aside. Returns how many are taken back. Raises `Malformed` if this side did not seal these
        bytes: it may never have had the key.
        """
        try:
            _, lines = self._opened(stream, wire)
        except (UnknownKey, BadSignature) as error:
            raise Malformed(f"not a batch of this network: {error}") from None
        lines = [line for line, _ in _requests_in(lines)]
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await take_back_from_outbox(connection, stream, lines)
            await append_to_outbox(connection, stream, lines)
        return len(lines)

    def _opened(self, stream: StreamName, wire: bytes) -> tuple[SealedBatch, list[bytes]]:
        sealed, lines = open_wire(keys_of_sender(self.sealer.keys, stream, stream.sender), wire)  # only our own keys
        if (sealed.manifest.link, sealed.manifest.stream) != (self.sealer.link_id, stream):
            raise Malformed(f"a batch of {sealed.manifest.link}/{sealed.manifest.stream} was given back as {stream}")
        return sealed, lines

    def _wanted(self, stream: StreamName, lines: Sequence[bytes]) -> list[bytes]:
        """Leave out adopted results, which are in the outbox, and records that are no requests."""
        if stream is StreamName.REQUESTS:
            return [line for line, _ in _requests_in(lines)]
        if stream is not StreamName.RESULTS or not self.adopted:
            return list(lines)
        return [line for line in lines if (named := result_named(line)) is None or named[0] not in self.adopted]

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
        """Seal the requests of `recover` that are not here any more, and every cancellation.

        Of two requests with one id the first is taken, as their receiver did.
        """
        while lines := (await take_from_outbox(connection, stream, MAX_RECORDS, MAX_RAW_BYTES)).records:
            records = _requests_in(lines)
            wanted = await missing_requests(connection, [record.request_id for _, record in records])
            again: list[bytes] = []
            for line, record in records:
                if record.kind != "request" or record.request_id in wanted:
                    again.append(line)
                if record.kind == "request":
                    wanted.discard(record.request_id)
            await self._seal_again(connection, stream, again, outcome)

    async def _move(self, connection: AsyncConnection, batch: BatchRef, lines: Sequence[bytes]) -> None:
        """Make the new batch the group of its requests, so that status and workflow follow it."""
        for _, record in _requests_in(lines):
            if record.kind == "request":
                await put_request(connection, record, to_json(record.params), batch)
        await store_group(connection, batch, len(lines))


@dataclass(frozen=True)
class ReceivingEnd:
    """Begins an epoch at its receiver. Received batches stay applied."""

    engine: AsyncEngine
    receiver: Receiver

    async def begin(self, order: EpochOrder) -> Receipt:
        """Expect batch 1 of the new epoch. Idempotent. Raises `Fork` if the previous batch has another hash here."""
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


def _requests_in(lines: Sequence[bytes]) -> list[tuple[bytes, RequestRecord]]:
    """The requests and cancellations among these lines. Others are logged: no row can be made of them."""
    found: list[tuple[bytes, RequestRecord]] = []
    for line in lines:
        try:
            found.append((line, RequestRecord.model_validate_json(line)))
        except ValidationError as error:
            reason = error.errors(include_url=False, include_input=False)[0]["msg"]
            log.warning("epoch.no_request", size=len(line), reason=cleaned(reason))
    return found


def _lines_of(order: EpochOrder, batch: StoredBatch, payload: bytes, outcome: Resealed) -> list[bytes]:
    """The records of a sealed batch. One whose bytes are damaged counts as lost, if the order accepts that."""
    try:
        return unpack(Manifest.model_validate_json(batch.manifest), payload)
    except (Malformed, ValidationError) as error:
        if not order.accept_loss:
            raise Conflict(
                f"batch {batch.epoch}.{batch.sequence} of {order.stream} is damaged here ({str(error).splitlines()[0]})"
                f" and holds {counted(batch.records, 'record')}: airlock verify --repair may restore it, or accept the"
                " loss: --accept-loss"
            ) from None
        outcome.lost += batch.records
        return []


async def _begun(connection: AsyncConnection, order: EpochOrder, present: int) -> bool:
    """Whether this order was executed before. Raises `Fork` if the epoch exists by another order."""
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
            f"{order.stream}: batch {order.previous_epoch}.{order.previous_sequence} has another hash here;"
            " order the new epoch again"
        )
