"""What has arrived in the request network: results, the newest snapshots, and the callbacks that results cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import BatchRef, StreamName
from storage.database import AnyRow, notify, row, rows, run


@dataclass(frozen=True)
class ArrivedResult:
    """One record of the results stream, parsed just far enough; ``body`` as it crossed."""

    record: int
    request_id: UUID
    status: str
    body: bytes


@dataclass(frozen=True)
class AddedResult:
    """Whose result it is, and whether it came too late: after its request was cancelled or expired."""

    user_id: UUID
    late: bool


async def store_results(
    connection: AsyncConnection, batch: BatchRef, results: Sequence[ArrivedResult]
) -> dict[UUID, AddedResult]:
    """Store results of requests that are known here; gives those that were added, by request id.

    What is not given had no request here, or has a result already.
    """
    if not results:
        return {}
    added = await rows(
        connection,
        """
        WITH added AS (
        INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
        SELECT request_id, requests.user_id, status, body, :epoch, :sequence
        FROM unnest(CAST(:request_ids AS uuid[]), CAST(:statuses AS text[]), CAST(:bodies AS bytea[]))
             AS arrived (request_id, status, body)
        JOIN requests USING (request_id)
        ON CONFLICT (request_id) DO NOTHING
        RETURNING request_id, user_id)
        SELECT request_id, added.user_id, closed IS NOT NULL FROM added JOIN requests USING (request_id)
        """,
        epoch=batch.epoch,
        sequence=batch.sequence,
        request_ids=[result.request_id for result in results],
        statuses=[result.status for result in results],
        bodies=[result.body for result in results],
    )
    if added:
        await notify(connection, "finished")
    return {request_id: AddedResult(user_id, late) for request_id, user_id, late in added}


async def stored_result_bodies(connection: AsyncConnection, request_ids: Sequence[UUID]) -> dict[UUID, bytes]:
    """The bodies of results that are here, to tell a repeated record from a contradicting one."""
    found = await rows(
        connection,
        "SELECT request_id, body FROM results WHERE request_id = ANY(CAST(:request_ids AS uuid[]))",
        request_ids=list(request_ids),
    )
    return {request_id: body for request_id, body in found}


async def find_outcome(connection: AsyncConnection, user_id: UUID, request_id: UUID) -> AnyRow | None:
    """How a request of this user ended so far: closed, closed_at, body; None where there is no such request."""
    return await row(
        connection,
        "SELECT requests.closed, requests.closed_at, results.body FROM requests LEFT JOIN results USING (request_id)"
        " WHERE requests.request_id = :request_id AND requests.user_id = :user_id",
        request_id=request_id,
        user_id=user_id,
    )


async def finished_among(connection: AsyncConnection, request_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these requests have an outcome."""
    found = await rows(
        connection,
        "SELECT request_id FROM requests LEFT JOIN results USING (request_id)"
        " WHERE request_id = ANY(CAST(:request_ids AS uuid[]))"
        " AND (closed IS NOT NULL OR results.request_id IS NOT NULL)",
        request_ids=list(request_ids),
    )
    return {request_id for (request_id,) in found}


async def store_snapshot(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, sealed_at: datetime, records: bytes
) -> bool:
    """Replace the snapshot by a newer one; False when the one here is as new. Wakes who keeps a copy in memory."""
    stored = await run(
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


async def callbacks_due(
    connection: AsyncConnection, group: BatchRef, after: UUID | None, limit: int
) -> Sequence[AnyRow]:
    """Finished requests of a group, and of those that it leads, whose callback is not delivered, from the one after
    ``after`` on: request_id, callback_url, closed, closed_at, body, finished_at.
    """
    return await rows(
        connection,
        """
        SELECT requests.request_id, callback_url, closed, closed_at, results.body,
               coalesce(closed_at, received_at) AS finished_at
        FROM requests LEFT JOIN results USING (request_id)
        WHERE (requests.epoch, requests.sequence) IN (
                SELECT epoch, sequence FROM request_groups
                WHERE epoch = :epoch AND (sequence = :sequence OR leader = :sequence))
          AND callback_url IS NOT NULL
          AND callback_at IS NULL AND (closed IS NOT NULL OR results.request_id IS NOT NULL)
          AND (CAST(:after AS uuid) IS NULL OR requests.request_id > CAST(:after AS uuid))
        ORDER BY requests.request_id LIMIT :limit
        """,
        epoch=group.epoch,
        sequence=group.sequence,
        after=after,
        limit=limit,
    )


async def mark_callback(connection: AsyncConnection, request_id: UUID, lost: str | None) -> None:
    """The callback was delivered, or given up for the reason ``lost``."""
    await run(
        connection,
        "UPDATE requests SET callback_at = now(), callback_lost = :lost WHERE request_id = :request_id",
        request_id=request_id,
        lost=lost,
    )
