"""Results of the response network that are neither sealed nor in the outbox, found with a temporary table of ids."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, execute, rows


async def create_sealed_ids(connection: AsyncConnection) -> None:
    """A temporary table for the ids of results that are sealed or in the outbox; it goes with the transaction."""
    await execute(connection, "CREATE TEMPORARY TABLE sealed_ids (request_id uuid NOT NULL) ON COMMIT DROP")


async def add_sealed_ids(connection: AsyncConnection, ids: Sequence[str]) -> None:
    """These are sealed, or in the outbox."""
    if ids:
        await execute(connection, "INSERT INTO sealed_ids SELECT * FROM unnest(CAST(:ids AS uuid[]))", ids=list(ids))


async def results_waiting_after(connection: AsyncConnection, last: int, most: int) -> Sequence[AnyRow]:
    """Results that are not sealed yet: id and body, from the one after ``last`` on."""
    return await rows(
        connection,
        "SELECT id, body FROM outbox WHERE stream = 'results' AND id > :last ORDER BY id LIMIT :most",
        last=last,
        most=most,
    )


async def find_unsealed(connection: AsyncConnection, most: int) -> list[UUID]:
    """Results of the response network that are neither, made after all whose batch's payload is emptied.

    An hour is allowed for the clocks of the worker and the database, which times batches and rows.
    """
    await execute(connection, "ANALYZE sealed_ids")  # or the plan is made for a handful of ids
    found = await rows(
        connection,
        """
        SELECT request_id FROM results
        WHERE NOT EXISTS (SELECT FROM sealed_ids WHERE sealed_ids.request_id = results.request_id)
          AND created_at > coalesce((SELECT max(sealed_at) + interval '1 hour' FROM sealed_batches
                                     WHERE stream = 'results' AND payload IS NULL), '-infinity')
        ORDER BY request_id LIMIT :most
        """,
        most=most,
    )
    return [UUID(str(item)) for (item,) in found]
