"""When results were first read, noted many at a time."""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import execute


async def record_first_reads(connection: AsyncConnection, moments: Mapping[UUID, datetime]) -> int:
    """Note first readings by request id, where none is noted; gives how many were. Waits for nobody: a row that is
    held by another is being noted by it, mended or deleted.
    """
    return await execute(
        connection,
        """
        WITH held AS (
            SELECT results.request_id, noted.moment FROM results
            JOIN unnest(CAST(:ids AS uuid[]), CAST(:moments AS timestamptz[])) AS noted (request_id, moment)
                USING (request_id)
            JOIN requests USING (request_id)
            WHERE first_read_at IS NULL AND closed IS NULL FOR UPDATE OF results SKIP LOCKED
        )
        UPDATE results SET first_read_at = held.moment FROM held WHERE results.request_id = held.request_id
        """,
        ids=list(moments),
        moments=list(moments.values()),
    )
