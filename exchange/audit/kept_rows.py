"""What verifying reads: batches as they are stored, digests over ranges of them, and rows beside what explains them."""

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
class KeptBatch:
    """A batch as it is stored on one side. ``done_at``: applied here or, on the sending side, delivered there."""

    sequence: int
    first_record: int
    records: int
    hash: bytes
    manifest: bytes
    signature: bytes
    payload: bytes | None
    done_at: datetime | None


@asynccontextmanager
async def one_moment(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A transaction in which every query sees the same moment, so that what moves meanwhile cannot seem wrong."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="REPEATABLE READ")
        async with connection.begin():
            yield connection


def _table(network: Network, stream: StreamName) -> tuple[str, str]:
    return ("sealed_batches", "delivered_at") if stream.sender is network else ("received_batches", "applied_at")


async def range_digest(
    connection: AsyncConnection, network: Network, stream: StreamName, epoch: int, first: int, last: int
) -> tuple[int, str]:
    """How many batches this side has from ``first`` to ``last``, and the SHA-256 over the hashes of their manifests.

    The hashes are taken of the manifests' bytes anew, not from the column beside them.
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
    """The hash of each manifest of a range, in hexadecimal."""
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


async def kept_batches(
    connection: AsyncConnection,
    network: Network,
    stream: StreamName,
    epoch: int,
    first: int,
    last: int,
    most: int = 200,
    payload_bytes: int = 4 * 1024 * 1024,
) -> list[KeptBatch]:
    """The first batches of a range: at most ``most``, and not more than ``payload_bytes`` after the first one."""
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
    return [KeptBatch(*item) for item in found]


async def take_up_again(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> None:
    """Have a received batch applied once more: what is there already stays as it is."""
    await execute(
        connection,
        "UPDATE received_batches SET applied_at = NULL"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )


async def quarantined_numbers(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequences: Sequence[int]
) -> set[int]:
    """Numbers of the records of these batches that are set aside: dropped ones too, but not what a retry applied."""
    found = await rows(
        connection,
        "SELECT record FROM quarantined_records WHERE stream = :stream AND epoch = :epoch"
        " AND sequence = ANY(CAST(:sequences AS bigint[])) AND applied_at IS NULL",
        stream=stream,
        epoch=epoch,
        sequences=list(sequences),
    )
    return {number for (number,) in found}


async def arrived_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Results in the request network: SHA-256 of the body, status, whether they belong to the request's owner."""
    found = await rows(
        connection,
        "SELECT request_id, sha256(body), results.status,"
        " requests.user_id IS NULL OR requests.user_id = results.user_id"
        " FROM results LEFT JOIN requests USING (request_id) WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def executed_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Results in the response network: SHA-256 of the body, status."""
    found = await rows(
        connection,
        "SELECT request_id, sha256(body), status, true FROM results WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def request_rows(connection: AsyncConnection, ids: Sequence[UUID]) -> dict[UUID, AnyRow]:
    """Requests, in either network: user_id, type, priority, params, submitted_at, deadline_at."""
    found = await rows(
        connection,
        "SELECT request_id, user_id, type, priority, params, submitted_at, deadline_at FROM requests"
        " WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item[0])): item for item in found}


async def cancelled_among(connection: AsyncConnection, ids: Sequence[UUID]) -> set[UUID]:
    """Which of these requests the response network knows as cancelled."""
    found = await rows(
        connection,
        "SELECT request_id FROM cancellations WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    return {UUID(str(item)) for (item,) in found}


async def groups_past(
    connection: AsyncConnection, ids: Sequence[UUID], age_seconds: float
) -> tuple[set[UUID], set[UUID]]:
    """Of these requests of the request network: those that are there, and those whose group is past retention."""
    found = await rows(
        connection,
        "SELECT request_id, coalesce(fulfilled_at < now() - make_interval(secs => :age), false) FROM requests"
        " LEFT JOIN request_groups USING (epoch, sequence) WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
        age=age_seconds,
    )
    return {UUID(str(item)) for item, _ in found}, {UUID(str(item)) for item, past in found if past}


async def fulfilled_long_ago(
    connection: AsyncConnection, epoch: int, sequences: Sequence[int], age_seconds: float
) -> set[int]:
    """Which of these groups of requests are past retention."""
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


async def rows_beside(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequences: Sequence[int], ids: Sequence[UUID]
) -> list[tuple[int, UUID]]:
    """Rows that name one of these batches of requests or results, which does not hold them: batch and id."""
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


async def places_of_no_batch(
    connection: AsyncConnection, network: Network, stream: StreamName, most: int
) -> list[tuple[int, int]]:
    """Epochs and numbers that rows of requests or results name and that no batch here has. Steps from one number to the
    next in the index (PostgreSQL has no skip scan of its own for this), so that it costs as much as there are batches,
    not rows.
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
    """Ids of the rows that name this batch of requests or results."""
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
    """The newest batch that this side has of each epoch that it has any of."""
    table, _ = _table(network, stream)
    found = await rows(
        connection, f"SELECT epoch, max(sequence) FROM {table} WHERE stream = :stream GROUP BY epoch", stream=stream
    )
    return {epoch: sequence for epoch, sequence in found}


async def newest_applied_snapshot(connection: AsyncConnection, stream: StreamName) -> tuple[int, int] | None:
    """Epoch and number of the last batch of the newest snapshot that replaced the one before it."""
    found: Any = await row(
        connection,
        "SELECT epoch, sequence FROM received_batches WHERE stream = :stream"
        " AND applied_at IS NOT NULL AND NOT superseded ORDER BY epoch DESC, sequence DESC LIMIT 1",
        stream=stream,
    )
    return None if found is None else (found.epoch, found.sequence)


def is_conflict(error: BaseException) -> bool:
    """Whether a transaction of one moment failed because what it would change was changed meanwhile: try it again."""
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) == "40001"
