"""SQL of verifying: stored batches, digests over ranges of batches, and the rows that they should have produced."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.streams import Network, StreamName
from storage.database import AnyRow, execute, row, rows


@dataclass(frozen=True)
class BatchRow:
    """A row of `sealed_batches` or `received_batches`. ``done_at``: when it was delivered or applied."""

    sequence: int
    first_record: int
    records: int
    hash: bytes
    manifest: bytes
    signature: bytes
    payload: bytes | None
    done_at: datetime | None


@asynccontextmanager
async def repeatable_read(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction in which every query sees the same snapshot, so that concurrent changes do not look like errors."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        async with connection.begin():
            yield connection


def _table(network: Network, stream: StreamName) -> tuple[str, str]:
    return ("sealed_batches", "delivered_at") if stream.sender is network else ("received_batches", "applied_at")


async def range_digest(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, first: int, last: int
) -> tuple[int, str]:
    """How many batches of a range are stored, and the SHA-256 over the hashes of their manifests.

    The hashes are computed from the manifests' bytes, not read from the column ``hash``.
    """
    table, _ = _table(network, stream)
    found = await row(
        connection,
        f"""
        SELECT count(*), encode(sha256(coalesce(string_agg(sha256(manifest), ''::bytea ORDER BY sequence), '')), 'hex')
        FROM {table} WHERE stream = :stream AND epoch = :epoch AND sequence BETWEEN :first AND :last
        """,
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
    )
    assert found is not None
    return found[0], found[1]


async def manifest_hashes(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, first: int, last: int
) -> dict[int, str]:
    """The SHA-256 of each manifest of a range, in hexadecimal."""
    table, _ = _table(network, stream)
    found = await rows(
        connection,
        f"SELECT sequence, encode(sha256(manifest), 'hex') FROM {table}"
        " WHERE stream = :stream AND epoch = :epoch AND sequence BETWEEN :first AND :last ORDER BY sequence",
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
    )
    return {sequence: digest for sequence, digest in found}


async def batch_row(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, sequence: int
) -> BatchRow | None:
    """One batch; None if it is not stored."""
    found = await batch_rows(connection, network, stream, epoch, sequence, sequence)
    return found[0] if found else None


async def batch_rows(
    connection: AsyncConnection,
    network: Network,
    stream: StreamName,
    epoch: int,
    first: int,
    last: int,
    most: int = 200,
    payload_bytes: int = 4 * 1024 * 1024,
) -> list[BatchRow]:
    """The first batches of a range: at most ``most``, and at most ``payload_bytes`` unless the first one is larger."""
    table, done_at = _table(network, stream)
    found = await rows(
        connection,
        f"""
        SELECT sequence, first_record, records, hash, manifest, signature, payload, {done_at} FROM {table}
        JOIN (SELECT sequence, sum(coalesce(octet_length(payload), 0)) OVER (ORDER BY sequence) AS bytes
              FROM (SELECT sequence, payload FROM {table} WHERE stream = :stream AND epoch = :epoch
                    AND sequence BETWEEN :first AND :last ORDER BY sequence LIMIT :most) AS page) AS sizes
             USING (sequence)
        WHERE stream = :stream AND epoch = :epoch
          AND (bytes <= :payload_bytes OR sequence = (
              SELECT min(sequence) FROM {table} WHERE stream = :stream AND epoch = :epoch AND sequence >= :first))
        ORDER BY sequence
        """,
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
        most=most,
        payload_bytes=payload_bytes,
    )
    return [BatchRow(*item) for item in found]


async def mark_unapplied(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> None:
    """Order that a received batch is applied again. Rows that are there stay as they are."""
    await execute(
        connection,
        "UPDATE received_batches SET applied_at = NULL"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )


async def arrived_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Results in the request network by request: id, SHA-256 of the body, status, whether the owner is right."""
    found = await rows(
        connection,
        "SELECT request_id, sha256(body), results.status,"
        " requests.user_id IS NULL OR requests.user_id = results.user_id"
        " FROM results LEFT JOIN requests USING (request_id) WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def executed_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Results in the response network by request, with the columns of `arrived_rows`."""
    found = await rows(
        connection,
        "SELECT request_id, sha256(body), status, true FROM results WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def request_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Requests, in either network, by id: user_id, type, priority, params, submitted_at, deadline_at."""
    found = await rows(
        connection,
        "SELECT request_id, user_id, type, priority, params, submitted_at, deadline_at FROM requests"
        " WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def cancelled_among(connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these requests have a cancellation in the response network."""
    found = await rows(
        connection,
        "SELECT request_id FROM cancellations WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item)) for (item,) in found}


async def requests_past_retention(
    connection: AsyncConnection, ids: Sequence[UUID], age_seconds: float
) -> tuple[set[UUID], set[UUID]]:
    """Those of these requests that the request network has, and those of them whose group is past retention."""
    found = await rows(
        connection,
        "SELECT request_id, coalesce(fulfilled_at < now() - make_interval(secs => :age), false) FROM requests"
        " LEFT JOIN request_groups USING (epoch, sequence) WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
        age=age_seconds,
    )
    return {UUID(str(item)) for item, _ in found}, {UUID(str(item)) for item, past in found if past}


async def groups_past_retention(
    connection: AsyncConnection, epoch: int, sequences: Sequence[int], age_seconds: float
) -> set[int]:
    """Which of these groups of requests are past retention in the request network."""
    found = await rows(
        connection,
        "SELECT sequence FROM request_groups WHERE epoch = :epoch"
        " AND sequence = ANY(CAST(:sequences AS bigint[]))"
        " AND fulfilled_at < now() - make_interval(secs => :age)",
        epoch=epoch,
        sequences=list(sequences),
        age=age_seconds,
    )
    return {sequence for (sequence,) in found}


async def extra_rows(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequences: Sequence[int], ids: Sequence[UUID]
) -> list[tuple[int, UUID]]:
    """Batch and id of rows of requests or results that name one of these batches but are not among ``ids``."""
    table = stream
    found = await rows(
        connection,
        f"SELECT sequence, request_id FROM {table} WHERE epoch = :epoch"
        " AND sequence = ANY(CAST(:sequences AS bigint[])) AND NOT EXISTS"
        f" (SELECT FROM unnest(CAST(:ids AS uuid[])) AS held (request_id) WHERE held.request_id = {table}.request_id)"
        " ORDER BY sequence, request_id LIMIT 5000",
        epoch=epoch,
        sequences=list(sequences),
        ids=list(ids),
    )
    return [(sequence, UUID(str(item))) for sequence, item in found]


async def unknown_places(
    connection: AsyncConnection, network: Network, stream: StreamName, most: int
) -> list[tuple[int, int]]:
    """Epoch and number that rows of requests or results name, but no batch here has.

    The query steps from number to number in the index (a skip scan), so its cost grows with batches, not with rows.
    """
    table, (batches, _) = stream, _table(network, stream)
    found = await rows(
        connection,
        f"""
        WITH RECURSIVE places AS (
            (SELECT epoch, sequence FROM {table} ORDER BY epoch, sequence LIMIT 1)
            UNION ALL
            SELECT following.epoch, following.sequence FROM places, LATERAL (
                SELECT epoch, sequence FROM {table}
                WHERE (epoch, sequence) > (places.epoch, places.sequence)
                ORDER BY epoch, sequence LIMIT 1) AS following
        )
        SELECT epoch, sequence FROM places WHERE NOT EXISTS (
            SELECT FROM {batches} AS batch WHERE batch.stream = :stream AND batch.epoch = places.epoch
            AND batch.sequence = places.sequence)
        ORDER BY epoch, sequence LIMIT :most
        """,
        stream=stream,
        most=most,
    )
    return [(epoch, sequence) for epoch, sequence in found]


async def rows_at(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, most: int) -> list[UUID]:
    """Ids of the rows of requests or results that name this batch."""
    found = await rows(
        connection,
        f"SELECT request_id FROM {stream} WHERE epoch = :epoch"
        " AND sequence = :sequence ORDER BY request_id LIMIT :most",
        epoch=epoch,
        sequence=sequence,
        most=most,
    )
    return [UUID(str(item)) for (item,) in found]


async def newest_stored(connection: AsyncConnection, network: Network, stream: StreamName) -> dict[int, int]:
    """The newest stored batch of each epoch that has one."""
    table, _ = _table(network, stream)
    found = await rows(
        connection, f"SELECT epoch, max(sequence) FROM {table} WHERE stream = :stream GROUP BY epoch", stream=stream
    )
    return {epoch: sequence for epoch, sequence in found}


async def newest_applied_snapshot(connection: AsyncConnection, stream: StreamName) -> tuple[int, int] | None:
    """Epoch and number of the last batch of the snapshot in force."""
    found: Any = await row(
        connection,
        "SELECT epoch, sequence FROM received_batches WHERE stream = :stream"
        " AND applied_at IS NOT NULL AND NOT superseded ORDER BY epoch DESC, sequence DESC LIMIT 1",
        stream=stream,
    )
    return None if found is None else (found.epoch, found.sequence)


def is_conflict(error: BaseException) -> bool:
    """Whether a `repeatable_read` transaction failed because another one changed the same rows: try it again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == "40001"
