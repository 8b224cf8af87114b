"""Stores the requests that arrived in the response network."""

from collections.abc import Sequence
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.incoming import received_range, records_of
from exchange.transfer.quarantine_store import RejectedRecord, quarantine, quarantined_numbers
from execution.answer import to_json
from execution.execution_store import differing_requests, store_cancellations, store_requests
from models.requests import RequestRecord
from models.streams import BatchRef


async def open_batches(connection: AsyncConnection, batches: BatchRef) -> int:
    """Store the requests of these received batches and quarantine their other records, in the caller's transaction.

    Safe to repeat. Returns how many of their records are in quarantine. The caller holds `lock_applying`.
    """
    # A batch without a payload is past retention: it was opened before.
    opened = [stored for stored in await received_range(connection, batches) if stored.payload is not None]
    if not opened:
        return 0
    begin, last = opened[0].first_record, opened[-1]
    aside = await quarantined_numbers(
        connection, batches.stream, batches.epoch, begin, last.first_record + last.records - begin
    )
    rejections = 0
    for stored in opened:
        lines = await records_of(stored)
        numbered = [(n, line) for n, line in enumerate(lines, stored.first_record) if n not in aside]
        one = BatchRef(stream=batches.stream, epoch=batches.epoch, sequence=stored.sequence)
        rejected = await take_requests(connection, one, numbered)
        await quarantine(connection, one, rejected)
        rejections += len(rejected)
    return rejections + len(aside)


async def take_requests(
    connection: AsyncConnection, batch: BatchRef, numbered: Sequence[tuple[int, bytes]]
) -> list[RejectedRecord]:
    """Store requests and cancellations in the caller's transaction. A request that is already stored is not changed.

    Returns the records that cannot be stored.
    """
    rejected: list[RejectedRecord] = []
    requests: dict[UUID, tuple[int, RequestRecord, bytes]] = {}
    cancellations = []
    for number, line in numbered:
        try:
            record = RequestRecord.model_validate_json(line)
        except ValidationError as error:
            rejected.append((number, line, f"not a request: {error.errors(include_url=False)[0]['msg']}"))
            continue
        if record.kind == "cancellation":
            cancellations.append((record.request_id, record.submitted_at))
        elif record.request_id in requests:
            rejected.append((number, line, "the batch holds this request id twice"))
        else:
            requests[record.request_id] = (number, record, line)
    new = await store_requests(
        connection, batch, [(record, to_json(record.params)) for _, record, _ in requests.values()]
    )
    again = [record for request_id, (_, record, _) in requests.items() if request_id not in new]
    changed = await differing_requests(connection, [(record, to_json(record.params)) for record in again])
    rejected += [
        (number, line, "this request id came in an earlier batch, with another request")
        for request_id, (number, _, line) in requests.items()
        if request_id in changed
    ]
    await store_cancellations(connection, cancellations)
    return rejected
