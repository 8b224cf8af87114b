"""The results and the newest snapshots that arrived in the request network."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import BatchRef, StreamName
from storage.database import AnyRow, execute, notify, row, rows
from storage.notices import FINISHED

AT_ONCE = 1000
"""Results in one statement. The driver copies a message of more than about 100 KB once for each of its parts."""


class ArrivedResult(NamedTuple):
    """One record of the results stream. Only its id and status are parsed; ``body`` is the record as it crossed."""

    record: int
    request_id: UUID
    status: str
    body: bytes


async def store_results(connection: AsyncConnection, batch: BatchRef, results: Sequence[ArrivedResult]) -> set[UUID]:
    """Store results. Return the ids that were skipped: there is no such request here, or it has a result already.

    OFFSET 0 makes PostgreSQL look each request up by its key. Otherwise it may read the whole table for each batch.
    """
    passed_over: set[UUID] = set()
    for begin in range(0, len(results), AT_ONCE):
        passed_over |= await _store_some(connection, batch, results[begin : begin + AT_ONCE])
    if len(passed_over) < len(results):
        await notify(connection, FINISHED)
    return passed_over


async def _store_some(connection: AsyncConnection, batch: BatchRef, results: Sequence[ArrivedResult]) -> set[UUID]:
    passed_over = await rows(
        connection,
        """
        WITH added AS (
            INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
            SELECT arrived.request_id, known.user_id, arrived.status, arrived.body, :epoch, :sequence
            FROM unnest(CAST(:request_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:bodies AS bytea[]))
                 AS arrived (request_id, status, body)
            CROSS JOIN LATERAL (
                SELECT user_id FROM requests WHERE requests.request_id = arrived.request_id OFFSET 0) AS known
            ON CONFLICT (request_id) DO NOTHING
            RETURNING request_id)
        SELECT request_id FROM unnest(CAST(:request_ids AS uuid[])) AS arrived (request_id)
        WHERE request_id NOT IN (SELECT request_id FROM added)
        """,
        epoch=batch.epoch,
        sequence=batch.sequence,
        request_ids=[result.request_id for result in results],
        statuses=[result.status for result in results],
        bodies=[result.body for result in results],
    )
    return {request_id for (request_id,) in passed_over}


async def stored_result_bodies(connection: AsyncConnection, request_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The bodies of stored results by request id, to tell a repeated record from a different one."""
    found = await rows(
        connection,
        "SELECT request_id, body FROM results WHERE request_id = ANY(CAST(:request_ids AS uuid[]))",
        request_ids=list(request_ids),
    )
    return {request_id: body for request_id, body in found}


async def outcomes_among(
    connection: AsyncConnection, request_ids: Sequence[UUID], also_open: Sequence[UUID]
) -> Sequence[AnyRow]:
    """Outcomes of the finished requests among these: request_id, user_id, closed, closed_at, body.

    Requests in ``also_open`` are returned even if they are open; their ``closed`` and ``body`` are then NULL.
    """
    return await rows(
        connection,
        """
        SELECT requests.request_id, requests.user_id, closed, closed_at, results.body
        FROM requests LEFT JOIN results USING (request_id)
        WHERE request_id = ANY(CAST(:request_ids AS uuid[]))
          AND (closed IS NOT NULL OR results.request_id IS NOT NULL
               OR request_id = ANY(CAST(:also_open AS uuid[])))
        """,
        request_ids=request_ids,
        also_open=also_open,
    )


async def store_snapshot(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, sealed_at: datetime, records: bytes
) -> bool:
    """Store a newer snapshot and notify processes that keep it in memory. Return False if the stored one is as new."""
    stored = await execute(
        connection,
        """
        INSERT INTO snapshots (stream, epoch, sequence, sealed_at, records)
        VALUES (:stream, :epoch, :sequence, :sealed_at, :records)
        ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence,
            sealed_at = excluded.sealed_at, records = excluded.records, applied_at = now()
        WHERE (snapshots.epoch, snapshots.sequence) < (excluded.epoch, excluded.sequence)
        """,
        stream=stream,
        epoch=epoch,
        sequence=sequence,
        sealed_at=sealed_at,
        records=records,
    )
    if stored:
        await notify(connection, f"snapshot {stream}")
    return stored > 0


async def find_snapshot(connection: AsyncConnection, stream: StreamName) -> AnyRow | None:
    """The newest snapshot: epoch, sequence, sealed_at, records, applied_at."""
    return await row(
        connection,
        "SELECT epoch, sequence, sealed_at, records, applied_at FROM snapshots WHERE stream = :stream",
        stream=stream,
    )
