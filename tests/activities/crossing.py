"""Batches that have crossed, for the tests of what is done with them; requests and results as they cross."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from exchange.transfer.outgoing import batch_after
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from fulfilment.request_store import NewRequest, store_submitted
from models.streams import BatchRef, Network, StreamName
from storage.database import execute, rows, value
from tests.conftest import Networks, Side

LINK = "test"
USER = UUID("0198c0de-0000-7000-8000-0000000000aa")
NOW = datetime.now(UTC)


def sender(networks: Networks, stream: StreamName) -> Side:
    return networks.request if stream.sender is Network.REQUEST else networks.response


def receiver(networks: Networks, stream: StreamName) -> Side:
    return networks.response if stream.sender is Network.REQUEST else networks.request


async def cross(networks: Networks, stream: StreamName, records: Sequence[bytes]) -> BatchRef:
    """Seal these records on one side and have the other accept them."""
    side = sender(networks, stream)
    async with side.engine.begin() as connection:
        batch = await Sealer(side.keys, LINK).seal(connection, stream, records)
    await deliver(networks, stream, batch)
    return batch


async def cross_snapshot(networks: Networks, stream: StreamName, records: Sequence[bytes]) -> list[BatchRef]:
    """The same for a snapshot, in as many parts as it needs."""
    side = sender(networks, stream)
    async with side.engine.begin() as connection:
        batches = await Sealer(side.keys, LINK).seal_snapshot(connection, stream, records)
    for batch in batches:
        await deliver(networks, stream, batch)
    return batches


async def deliver(networks: Networks, stream: StreamName, batch: BatchRef) -> None:
    """Have the other side accept a sealed batch."""
    there = receiver(networks, stream)
    async with sender(networks, stream).engine.connect() as connection:
        stored = await batch_after(connection, stream, batch.epoch, batch.sequence - 1)
    assert stored is not None
    assert stored.payload is not None
    wire = to_wire(stored.manifest, stored.signature, stored.payload)
    await Receiver(there.engine, there.keys, LINK).accept(stream, wire)


def new_id() -> UUID:
    return uuid7()


def request_record(request_id: UUID, type_name: str = "rows", params: Any = None, **more: Any) -> bytes:
    """A record of the requests stream."""
    record = {
        "kind": "request",
        "request_id": request_id,
        "user_id": USER,
        "type": type_name,
        "params": params or {},
        "submitted_at": NOW,
    }
    return orjson.dumps(record | more)


def cancellation(request_id: UUID) -> bytes:
    record = {"kind": "cancellation", "request_id": request_id, "user_id": USER, "submitted_at": NOW}
    return orjson.dumps(record)


def result_record(request_id: UUID, status: str = "completed", data: str = "[]", more: str = "") -> bytes:
    """A record of the results stream, in a spelling that no serialiser would choose."""
    return f'{{"request_id":"{request_id}" , "status":"{status}","data":{data},"returned":1{more}}}'.encode()


async def submit(
    networks: Networks, *request_ids: UUID, callback: str | None = None, deadline: float | None = None
) -> BatchRef:
    """Submit requests in the request network as its API does; gives their group."""
    side = networks.request
    async with side.engine.begin() as connection:
        records = [request_record(request_id) for request_id in request_ids]
        group = await Sealer(side.keys, LINK).seal(connection, StreamName.REQUESTS, records)
        deadline_at = None if deadline is None else datetime.now(UTC) + timedelta(seconds=deadline)
        submitted = [
            NewRequest(request_id, USER, "rows", None, 5, b"{}", callback, NOW, deadline_at)
            for request_id in request_ids
        ]
        await store_submitted(connection, group, submitted)
    return group


async def table(side: Side, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """What a query gives, as plain tuples."""
    async with side.engine.connect() as connection:
        return [tuple(row) for row in await rows(connection, statement, **parameters)]


async def one(side: Side, statement: str, **parameters: Any) -> Any:
    """The first value of a query."""
    async with side.engine.connect() as connection:
        return await value(connection, statement, **parameters)


async def change(side: Side, statement: str, **parameters: Any) -> None:
    """Run a statement and commit."""
    async with side.engine.begin() as connection:
        await execute(connection, statement, **parameters)


async def quarantined(side: Side) -> list[tuple[int, str]]:
    """Record numbers and reasons."""
    found = await table(side, "SELECT record, reason FROM quarantined_records ORDER BY stream, record")
    return [(record, reason) for record, reason in found]
