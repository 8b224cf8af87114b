"""What both databases say of one stream, read past everything that a test may hold up or crash."""

from dataclasses import dataclass
from typing import Any, TypeAlias

import asyncpg

from models.streams import Network, StreamName

Looking: TypeAlias = "asyncpg.Pool[asyncpg.Record]"
"""Connections that no test holds up or crashes."""

_TABLES = {
    Network.REQUEST: "outgoing_streams, outbox, sealed_batches, incoming_streams, received_batches,"
    " quarantined_records, requests, request_groups, results, snapshots, attendances",
    Network.RESPONSE: "outgoing_streams, outbox, sealed_batches, incoming_streams, received_batches,"
    " quarantined_records, requests, cancellations, results",
}


@dataclass(frozen=True)
class Sealed:
    """One batch in the sender's table."""

    sequence: int
    manifest: bytes
    signature: bytes
    payload: bytes | None
    hash: bytes
    delivered: bool


@dataclass(frozen=True)
class Received:
    """One batch in the receiver's table."""

    sequence: int
    manifest: bytes
    signature: bytes
    payload: bytes | None
    hash: bytes
    applied: bool
    superseded: bool


@dataclass(frozen=True)
class Seen:
    """A stream at its two ends, while nothing moves."""

    outbox: list[bytes]
    sealed: list[Sealed]
    delivered: int
    said_applied: int
    """How far receipts say that the receiver has applied."""
    head: tuple[int, int, bytes]
    """The sender's sequence, record and hash."""
    received: list[Received]
    cursor: tuple[int, int, bytes]
    """The receiver's sequence, record and hash."""
    applied: int
    quarantined: list[bytes]
    stopped: list[str]
    snapshot: tuple[int, bytes] | None
    """Number and records of the snapshot that the receiver shows."""


async def look(connections: dict[Network, Looking], stream: StreamName) -> Seen:
    """Read both ends."""
    there, here = connections[stream.sender], connections[stream.receiver]
    outgoing = await there.fetchrow("SELECT * FROM outgoing_streams WHERE stream = $1", stream)
    incoming = await here.fetchrow("SELECT * FROM incoming_streams WHERE stream = $1", stream)
    assert outgoing is not None
    assert incoming is not None
    sealed = await there.fetch(
        "SELECT sequence, manifest, signature, payload, hash, delivered_at IS NOT NULL FROM sealed_batches"
        " WHERE stream = $1 ORDER BY sequence",
        stream,
    )
    received = await here.fetch(
        "SELECT sequence, manifest, signature, payload, hash, applied_at IS NOT NULL, superseded FROM received_batches"
        " WHERE stream = $1 ORDER BY sequence",
        stream,
    )
    snapshot = None
    if stream.is_snapshot:
        snapshot = await here.fetchrow("SELECT sequence, records FROM snapshots WHERE stream = $1", stream)
    return Seen(
        await bodies(there, "SELECT body FROM outbox WHERE stream = $1 ORDER BY id", stream),
        [Sealed(*row) for row in sealed],
        outgoing["delivered"],
        outgoing["applied"],
        (outgoing["sequence"], outgoing["record"], outgoing["hash"]),
        [Received(*row) for row in received],
        (incoming["sequence"], incoming["record"], incoming["hash"]),
        incoming["applied"],
        await bodies(here, "SELECT body FROM quarantined_records WHERE stream = $1 ORDER BY record", stream),
        [end["stopped"] for end in (outgoing, incoming) if end["stopped"]],
        (snapshot["sequence"], snapshot["records"]) if snapshot else None,
    )


async def bodies(connection: Looking, statement: str, *values: Any) -> list[bytes]:
    """The first column of a query."""
    return [row[0] for row in await connection.fetch(statement, *values)]


async def begin_anew(connections: dict[Network, Looking], stream: StreamName) -> None:
    """Empty what an earlier example left, and begin both ends of the stream."""
    for network, connection in connections.items():
        await connection.execute("; ".join(f"DELETE FROM {name}" for name in _TABLES[network].split(", ")))
    for network, table in ((stream.sender, "outgoing_streams"), (stream.receiver, "incoming_streams")):
        await connections[network].execute(f"INSERT INTO {table} (stream, hash) VALUES ($1, $2)", stream, bytes(32))


async def let_go_on(connections: dict[Network, Looking], stream: StreamName) -> None:
    """An operator has looked at a stopped stream and found both histories to be the same."""
    await connections[stream.sender].execute("UPDATE outgoing_streams SET stopped = NULL")
    await connections[stream.receiver].execute("UPDATE incoming_streams SET stopped = NULL")


async def somebody_waits(connections: dict[Network, Looking]) -> bool:
    """Whether a transaction waits for another one's lock, in either database."""
    for connection in connections.values():
        if await connection.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()"
            " AND wait_event_type = 'Lock')"
        ):
            return True
    return False
