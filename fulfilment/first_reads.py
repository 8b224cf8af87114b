"""Notes when results are first read. Readers never wait for it, and nothing that goes wrong with it reaches them."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from fulfilment.first_read_store import record_first_reads
from models.errors import describe
from storage.database import UNREACHABLE

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 1.0
"""Readings of so long go into one statement; they are lost where the process is killed before."""
MOST_WAITING = 20_000
"""Readings that are kept while the database is away; further ones are not noted."""
FINISH_SECONDS = 2.0


class FirstReads:
    """Readings wait in memory and are written together, each result's once."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: dict[UUID, datetime] = {}
        self._written: set[UUID] = set()
        """The last ones, so that who reads a result over and over causes no writing."""
        self._something = asyncio.Event()

    def record(self, request_id: UUID) -> None:
        """A result is being read."""
        if request_id in self._written or request_id in self._waiting or len(self._waiting) >= MOST_WAITING:
            return
        self._waiting[request_id] = datetime.now(UTC)
        self._something.set()

    async def run(self) -> None:
        """Write what was noted, for ever; once more when cancelled."""
        try:
            while True:
                await self._something.wait()
                await asyncio.sleep(FLUSH_SECONDS)
                await self.flush()
        finally:
            with suppress(TimeoutError):
                async with asyncio.timeout(FINISH_SECONDS):
                    await self.flush()

    async def flush(self) -> None:
        """Write what waits; where the database is away it goes on waiting."""
        self._something.clear()
        if not (noted := self._waiting):
            return
        self._waiting = {}
        try:
            async with self._engine.begin() as connection:
                await record_first_reads(connection, noted)
        except (DBAPIError, OSError, *UNREACHABLE) as error:
            log.warning("first_reads.not_written", results=len(noted), error=describe(error))
            self._waiting = noted | self._waiting
            self._something.set()
            return
        if len(self._written) + len(noted) > MOST_WAITING:
            self._written.clear()
        self._written.update(noted)
