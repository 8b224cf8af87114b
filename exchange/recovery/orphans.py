"""Rows that belong to no batch. A repair moves them, complete, into table `set_aside`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import BatchRef, StreamName
from storage.database import execute, row, rows

TABLES = ("requests", "results")
"""The tables whose rows may be set aside; both have the key `request_id`."""


@dataclass(frozen=True)
class OrphanedRow:
    """A row that was set aside."""

    number: int
    table: str
    request_id: UUID
    reason: str
    set_aside_at: datetime
    row: dict[str, Any]


async def set_rows_aside(
    connection: AsyncConnection, table: str, reasons: dict[UUID, str]
) -> list[tuple[UUID, UUID | None]]:
    """Move rows into `set_aside`, by request id and reason. Returns ids and owners of the moved rows."""
    moved = await rows(
        connection,
        f"""
        WITH taken AS (
            DELETE FROM {_known(table)} WHERE request_id = ANY(CAST(:ids AS uuid[]))
            RETURNING request_id, to_jsonb({table}.*) AS whole
        )
        INSERT INTO set_aside (table_name, request_id, whole, reason)
        SELECT :table, request_id, whole, reason FROM taken
        JOIN unnest(CAST(:ids AS uuid[]), CAST(:reasons AS text[])) AS named (request_id, reason) USING (request_id)
        RETURNING request_id, whole ->> 'user_id'
        """,
        table=table,
        ids=list(reasons),
        reasons=list(reasons.values()),
    )
    return [(UUID(str(request_id)), UUID(owner) if owner else None) for request_id, owner in moved]


async def rows_set_aside(connection: AsyncConnection, after: int, most: int) -> list[OrphanedRow]:
    """Rows in `set_aside` after number ``after``, oldest first."""
    found = await rows(
        connection,
        "SELECT number, table_name, request_id, reason, set_aside_at, whole FROM set_aside WHERE number > :after"
        " ORDER BY number LIMIT :most",
        after=after,
        most=most,
    )
    return [OrphanedRow(*item) for item in found]


async def put_row_back(connection: AsyncConnection, number: int) -> tuple[str, UUID] | None:
    """Move a row back into its table. Returns the table and the request id, None if there is no such row.

    Raises IntegrityError if another row has taken its place.
    """
    found = await row(
        connection,
        "DELETE FROM set_aside WHERE number = :number RETURNING table_name, request_id, whole::text",
        number=number,
    )
    if found is None:
        return None
    table = _known(found.table_name)
    await execute(
        connection,
        f"INSERT INTO {table} SELECT * FROM jsonb_populate_record(NULL::{table}, CAST(:whole AS jsonb))",
        whole=found.whole,
    )
    return table, UUID(str(found.request_id))


async def batches_without_result(connection: AsyncConnection, ids: Sequence[UUID]) -> list[BatchRef]:
    """Batches that hold one of these requests without a result, and still have their payload."""
    found = await rows(
        connection,
        """
        SELECT DISTINCT batch.epoch, batch.sequence FROM requests
        JOIN received_batches AS batch ON batch.stream = 'requests'
             AND batch.epoch = requests.epoch AND batch.sequence = requests.sequence AND batch.payload IS NOT NULL
        WHERE request_id = ANY(CAST(:ids AS uuid[]))
          AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
        """,
        ids=list(ids),
    )
    return [BatchRef(stream=StreamName.REQUESTS, epoch=epoch, sequence=sequence) for epoch, sequence in found]


def _known(table: str) -> str:
    if table not in TABLES:
        raise ValueError(f"rows of {table!r} are not set aside")
    return table
