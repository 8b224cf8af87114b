"""The callbacks that owners of requests asked for: which are due, made, or to be made again."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, execute, rows


async def callbacks_due(connection: AsyncConnection, limit: int) -> Sequence[AnyRow]:
    """Finished requests whose callback is to be made now, oldest first: request_id, callback_url, closed, closed_at,
    body, finished_at, callback_attempts.
    """
    return await rows(
        connection,
        """
        SELECT requests.request_id, callback_url, closed, closed_at, results.body,
               coalesce(closed_at, received_at) AS finished_at, callback_attempts
        FROM requests LEFT JOIN results USING (request_id)
        WHERE callback_url IS NOT NULL AND callback_at IS NULL
          AND (callback_after IS NULL OR callback_after <= now())
          AND (closed IS NOT NULL OR results.request_id IS NOT NULL)
        ORDER BY requests.request_id LIMIT :limit
        """,
        limit=limit,
    )


async def mark_callback(connection: AsyncConnection, request_id: UUID, lost: str | None) -> None:
    """The callback was delivered, or given up for the reason ``lost``."""
    await execute(
        connection,
        "UPDATE requests SET callback_at = now(), callback_lost = :lost WHERE request_id = :request_id",
        request_id=request_id,
        lost=lost,
    )


async def retry_callback(connection: AsyncConnection, request_id: UUID, seconds: float) -> None:
    """The receiver did not take the callback: make it again after so many seconds."""
    await execute(
        connection,
        "UPDATE requests SET callback_attempts = callback_attempts + 1,"
        " callback_after = now() + make_interval(secs => :seconds) WHERE request_id = :request_id",
        request_id=request_id,
        seconds=seconds,
    )
