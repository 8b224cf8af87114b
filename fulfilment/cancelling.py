"""Cancelling requests: they are closed here, and their cancellations are sealed for the response network.

One sealed batch holds a thousand cancellations of an operator, not one each.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.transfer.incoming import lock_applying
from exchange.transfer.sealing import Sealer
from models.streams import StreamName
from storage.database import notify, rows
from storage.notices import FINISHED

AT_A_TIME = 1000
"""Cancellations in one transaction and batch. It holds the locks of applying and sealing."""


async def seal_cancellations(connection: AsyncConnection, sealer: Sealer, closed: Sequence[tuple[UUID, UUID]]) -> None:
    """Seal the cancellations of these closed requests (id, owner) as one batch, in the transaction that closed them.

    Raises `StreamStopped`.
    """
    now = datetime.now(UTC)
    records = [
        orjson.dumps(
            {"kind": "cancellation", "request_id": str(request_id), "user_id": str(owner), "submitted_at": now}
        )
        for request_id, owner in closed
    ]
    await sealer.seal(connection, StreamName.REQUESTS, records)
    await notify(connection, f"sealed {StreamName.REQUESTS}")


async def cancel_requests(
    engine: AsyncEngine,
    sealer: Sealer,
    user_id: UUID | None = None,
    type_name: str | None = None,
    request_ids: Sequence[UUID] | None = None,
) -> int:
    """Cancel the open requests that meet all given conditions. Return their number.

    A request is either cancelled or gets a result, never both. The response network does not execute what it has not
    begun. Raises `StreamStopped` while the stream waits for an operator.
    """
    cancelled = 0
    while True:
        async with engine.begin() as connection:
            await lock_applying(connection, StreamName.RESULTS)
            closed = await rows(
                connection,
                """
                UPDATE requests SET closed = 'cancelled', closed_at = now() WHERE request_id IN (
                    SELECT request_id FROM requests
                    WHERE closed IS NULL
                      AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
                      AND (CAST(:user_id AS uuid) IS NULL OR user_id = :user_id)
                      AND (CAST(:type AS text) IS NULL OR type = :type)
                      AND (CAST(:ids AS uuid[]) IS NULL OR request_id = ANY (CAST(:ids AS uuid[])))
                    ORDER BY request_id LIMIT :most)
                RETURNING request_id, user_id
                """,
                user_id=user_id,
                type=type_name,
                ids=None if request_ids is None else list(request_ids),
                most=AT_A_TIME,
            )
            if closed:
                await seal_cancellations(connection, sealer, [(request_id, owner) for request_id, owner in closed])
                await notify(connection, FINISHED)
        cancelled += len(closed)
        if len(closed) < AT_A_TIME:
            return cancelled
