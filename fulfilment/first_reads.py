"""Records when results were first read, for the trace of a request. Readers do not wait for it."""

import asyncio
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import describe
from storage.database import execute, is_unreachable

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
"""The reads of this time go into one statement. They are lost if the process ends or the database is away."""


class FirstReads:
    """Collects the ids of results that are read, and records the time of each result's first read."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._read: set[UUID] = set()

    def record(self, request_id: UUID) -> None:
        """This result is being read."""
        self._read.add(request_id)

    async def run(self) -> None:
        """Write the collected reads periodically, for ever."""
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write the collected reads. Skip a locked row: another process is recording, repairing or deleting it."""
        read, self._read = self._read, set()
        if not read:
            return
        try:
            async with self._engine.begin() as connection:
                await execute(
                    connection,
                    """
                    WITH unread AS (
                        SELECT request_id FROM unnest(CAST(:ids AS uuid[])) AS read (request_id)
                        JOIN results USING (request_id) JOIN requests USING (request_id)
                        WHERE first_read_at IS NULL AND closed IS NULL FOR UPDATE OF results SKIP LOCKED
                    )
                    UPDATE results SET first_read_at = now() FROM unread WHERE results.request_id = unread.request_id
                    """,
                    ids=list(read),
                )
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("first_reads.lost", results=len(read), error=describe(error))
