"""An operator's decisions about quarantined records: retry them, by the code that applies batches, or drop them."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.audit.auditor import snapshot_records
from exchange.audit.row_checks import request_differs, request_named
from exchange.audit.stored_rows import batch_row, mark_unapplied, request_rows
from exchange.recovery.repaired_rows import put_snapshot, without_result
from exchange.transfer.incoming import lock_applying
from exchange.transfer.outgoing import append_to_outbox
from exchange.transfer.quarantine_store import (
    QuarantinedRecord,
    drop_quarantined,
    find_quarantined,
    list_quarantined,
    open_of_batches,
    open_page,
    record_retry,
)
from exchange.wire.manifest import Manifest
from execution.answer import not_completed
from execution.execution_store import FinishedResult, store_results
from execution.intake import take_requests
from fulfilment.applying import take_results
from fulfilment.result_store import find_snapshot
from fulfilment.snapshots import bad_records
from models.errors import Conflict, InvalidInput, NotFound
from models.foreign_text import cleaned
from models.requests import RequestRecord, RequestStatus
from models.streams import BatchRef, Network, StreamName
from storage.database import notify

log = structlog.get_logger(__name__)

DROPPED = "dropped"
"""Reason in the result of a request that an operator of the response network dropped."""
GIVEN_UP = "the response network could not accept this request, and its operator dropped it"
PAGE = 500


@dataclass(frozen=True)
class Retried:
    """The result of a retry of one record. ``refused`` is why it stays; None if it was applied."""

    stream: StreamName
    epoch: int
    record: int
    refused: str | None


@dataclass(frozen=True)
class Quarantine:
    """One network's own quarantine. Safe to run twice: a record that is not open does not change."""

    engine: AsyncEngine
    network: Network

    async def retry(self, stream: StreamName, epoch: int, record: int) -> list[Retried]:
        """Apply an open record as its batch would be applied now. A request keeps its first result.

        With a record of a snapshot, all its open records are retried. Raises `NotFound`, or `Conflict` if the record is
        not open.
        """
        self._check(stream)
        async with self.engine.begin() as connection:
            await lock_applying(connection, stream)
            found, body = await _open(connection, stream, epoch, record)
            if stream.is_snapshot:
                verdicts = await _retry_snapshot(connection, found)
            elif stream is StreamName.REQUESTS:
                verdicts = {record: await _retry_request(connection, found, body)}
            else:
                verdicts = {record: await _retry_result(connection, found, body)}
            for number, refused in verdicts.items():
                await record_retry(connection, stream, epoch, number, refused)
        for number, refused in verdicts.items():
            log.warning("quarantine.retried", stream=stream, record=f"{epoch}.{number}", refused=refused)
        return [Retried(stream, epoch, number, refused) for number, refused in sorted(verdicts.items())]

    async def retry_all(self, stream: StreamName) -> list[Retried]:
        """Retry every open record of a stream, oldest first, each in its own transaction."""
        self._check(stream)
        outcome: dict[tuple[int, int], Retried] = {}
        place = ("", 0, 0)
        while True:
            async with self.engine.begin() as connection:
                await lock_applying(connection, stream)  # an applier that is quarantining a record commits first
                page = await list_quarantined(connection, [stream], after=place, limit=PAGE)
            for item in page:
                place = (item.stream, item.epoch, item.record)
                if (item.epoch, item.record) not in outcome:
                    try:
                        again = await self.retry(stream, item.epoch, item.record)
                    except Conflict:  # retried or dropped meanwhile
                        continue
                    outcome |= {(each.epoch, each.record): each for each in again}
            if len(page) < PAGE:
                return [outcome[key] for key in sorted(outcome)]

    async def drop(self, stream: StreamName, epoch: int, record: int, by: str, reason: str) -> QuarantinedRecord:
        """Drop an open record; who and why is stored with it. A dropped request gets a failed result, so that its owner
        does not wait for ever. The result does not contain the operator's reason, which is not public.

        Raises `NotFound`, or `Conflict` if the record is not open.
        """
        self._check(stream)
        _check_decision(by, reason)
        async with self.engine.begin() as connection:
            await lock_applying(connection, stream)
            _, body = await _open(connection, stream, epoch, record)
            await drop_quarantined(connection, stream, epoch, [record], by, reason)
            if stream is StreamName.REQUESTS:
                await _store_failed_results(connection, [body])
            found = await find_quarantined(connection, stream, epoch, record)
        assert found is not None
        log.warning("quarantine.dropped", stream=stream, record=f"{epoch}.{record}", by=by, reason=reason)
        return found[0]

    async def drop_all(
        self,
        stream: StreamName,
        by: str,
        reason: str,
        epoch: int | None = None,
        first: int = 1,
        last: int | None = None,
    ) -> int:
        """Drop every open record of a stream, or only those of an epoch, or with numbers from ``first`` to ``last``.

        `PAGE` records to a transaction: an interrupted call is simply repeated. Returns how many were dropped.
        """
        self._check(stream)
        _check_decision(by, reason)
        dropped = 0
        while True:
            async with self.engine.begin() as connection:
                await lock_applying(connection, stream)
                page = await open_page(connection, stream, epoch, first, last, PAGE)
                for each in {place for place, _, _ in page}:
                    numbers = [number for place, number, _ in page if place == each]
                    dropped += await drop_quarantined(connection, stream, each, numbers, by, reason)
                if stream is StreamName.REQUESTS:
                    await _store_failed_results(connection, [body for _, _, body in page])
            if len(page) < PAGE:
                log.warning("quarantine.dropped_all", stream=stream, records=dropped, by=by, reason=reason)
                return dropped

    def _check(self, stream: StreamName) -> None:
        if stream.receiver is not self.network:
            raise NotFound(f"records of {stream} are quarantined in the {stream.receiver} network, not in this one")


async def _open(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int
) -> tuple[QuarantinedRecord, bytes]:
    found = await find_quarantined(connection, stream, epoch, record)
    if found is None:
        raise NotFound(f"record {epoch}.{record} of {stream} is not in quarantine")
    aside = found[0]
    if aside.applied_at is not None:
        raise Conflict(f"record {epoch}.{record} of {stream} was applied by a retry at {aside.applied_at:%F %T}Z")
    if aside.dropped_at is not None:
        raise Conflict(f"record {epoch}.{record} of {stream} was dropped by {aside.dropped_by}: {aside.drop_reason}")
    return found


def _batch(aside: QuarantinedRecord) -> BatchRef:
    return BatchRef(stream=aside.stream, epoch=aside.epoch, sequence=aside.sequence)


async def _retry_result(connection: AsyncConnection, aside: QuarantinedRecord, body: bytes) -> str | None:
    rejected = await take_results(connection, _batch(aside), [(aside.record, body)])
    return rejected[0][2] if rejected else None


async def _retry_request(connection: AsyncConnection, aside: QuarantinedRecord, body: bytes) -> str | None:
    """Store a request. The pull loop finds its batch unapplied and executes it."""
    rejected = await take_requests(connection, _batch(aside), [(aside.record, body)])
    try:
        record = RequestRecord.model_validate_json(body)
    except ValidationError:
        return rejected[0][2]
    if record.kind == "cancellation":
        return None
    there = (await request_rows(connection, [record.request_id])).get(record.request_id)
    if there is None:
        return rejected[0][2]
    if differs := request_differs(record, there):
        return f"another request with this id is here: {', '.join(differs)} differ"
    if not rejected and await without_result(connection, [record.request_id]):
        await mark_unapplied(connection, aside.stream, aside.epoch, aside.sequence)
    return None


async def _retry_snapshot(connection: AsyncConnection, aside: QuarantinedRecord) -> dict[int, str | None]:
    """Apply the snapshot of this record again, if it is in force. A later snapshot has replaced all of it."""
    stream, epoch = aside.stream, aside.epoch
    manifest = await _manifest(connection, stream, epoch, aside.sequence)
    if manifest is None:
        return {aside.record: "its batch is no longer stored: airlock verify --repair restores it"}
    first = aside.sequence - manifest.part + 1
    last = first + manifest.parts - 1
    waiting = await open_of_batches(connection, stream, epoch, first, last)
    newest = await find_snapshot(connection, stream)
    if newest is not None and (newest.epoch, newest.sequence) > (epoch, last):
        reason = f"superseded: snapshot {newest.epoch}.{newest.sequence} is in force, nothing is left to apply: drop it"
        return {number: reason for number, _ in waiting}
    parts = [await _manifest(connection, stream, epoch, sequence) for sequence in range(first, last + 1)]
    complete = [(part.part, part.parts) if part else None for part in parts] == [
        (number, manifest.parts) for number in range(1, manifest.parts + 1)
    ]
    verdicts: dict[int, str | None] = {number: None for number, _ in waiting}
    verdicts |= {number: reason for number, _, reason in bad_records(stream, waiting, complete)}
    accepted = [number for number, refused in verdicts.items() if refused is None]
    if accepted and not await _put_snapshot(connection, parts[-1], accepted):
        verdicts |= dict.fromkeys(accepted, "a part of this snapshot is past retention: airlock verify --repair")
    return verdicts


async def _put_snapshot(connection: AsyncConnection, last: Manifest | None, accepted: Sequence[int]) -> bool:
    """Put the snapshot again, now with these records. Returns False, and changes nothing, if a payload is gone."""
    assert last is not None
    async with connection.begin_nested() as attempt:
        for number in accepted:
            await record_retry(connection, last.stream, last.epoch, number, None)
        records = await snapshot_records(connection, last.stream, last.epoch, last.sequence)
        if records is None:
            await attempt.rollback()
            return False
        await put_snapshot(connection, last.stream, last.epoch, last.sequence, last.sealed_at, records)
        await notify(connection, f"snapshot {last.stream}")
    return True


async def _manifest(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> Manifest | None:
    """The manifest of a received batch."""
    found = await batch_row(connection, stream.receiver, stream, epoch, sequence)
    return Manifest.model_validate_json(found.manifest) if found else None


async def _store_failed_results(connection: AsyncConnection, bodies: Sequence[bytes]) -> None:
    """Store a failed result for each dropped request, unless the request is stored here: then it gets its own result.

    A body of which only the beginning was kept names nothing, and gets none.
    """
    named = {UUID(each): body for body in reversed(bodies) if (each := request_named(body)) is not None}
    here = await request_rows(connection, list(named))
    await give_up(connection, [(each, _type_in(body)) for each, body in named.items() if each not in here])


def _type_in(body: bytes) -> str:
    kind = orjson.loads(body).get("type")
    return cleaned(kind, 63) if isinstance(kind, str) else ""


async def give_up(connection: AsyncConnection, requests: Sequence[tuple[UUID, str]]) -> int:
    """Store a failed result for these requests (id, type) and send it. Returns how many had none."""
    results = [
        FinishedResult(
            request_id,
            type_name,
            RequestStatus.FAILED,
            DROPPED,
            0,
            None,
            None,
            not_completed(request_id, RequestStatus.FAILED, DROPPED, GIVEN_UP),
        )
        for request_id, type_name in requests
    ]
    new = await store_results(connection, results)
    await append_to_outbox(connection, StreamName.RESULTS, [each.body for each in new])
    return len(new)


def _check_decision(by: str, reason: str) -> None:
    if not reason.strip() or not by.strip():
        raise InvalidInput("say who drops the record and why: both are stored with it")
