"""Waking whoever waits in this process for something that was committed, in this process or another one."""

import asyncio
from collections import defaultdict
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.arrivals import finished_among
from storage.database import is_unreachable, reading

log = structlog.get_logger(__name__)

DEAF_POLL_SECONDS = 1.0
"""How often waiters look for themselves while the database's notices do not come in."""


class Bell:
    """Rings for all who hold its present `ticket`. Take the ticket before looking, and no ring is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def ticket(self) -> asyncio.Event:
        return self._event

    def ring(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class FinishedRequests:
    """Lets callers wait until a request has an outcome. One query serves all who wait at a time."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: defaultdict[UUID, set[asyncio.Event]] = defaultdict(set)
        self._look = asyncio.Event()
        self.listening = False

    def expect(self, request_id: UUID) -> asyncio.Event:
        """An event for the outcome of this request. Look once after this call; give it back with `forget`."""
        event = asyncio.Event()
        self._waiting[request_id].add(event)
        return event

    def forget(self, request_id: UUID, event: asyncio.Event) -> None:
        events = self._waiting[request_id]
        events.discard(event)
        if not events:
            del self._waiting[request_id]

    def wake_all(self) -> None:
        """Have everybody look, whatever there is to see."""
        for events in self._waiting.values():
            for event in events:
                event.set()

    def something_finished(self) -> None:
        """Have the waiters looked after."""
        self._look.set()

    async def run(self) -> None:
        """Look after the waiters, for ever."""
        while True:
            try:
                async with asyncio.timeout(None if self.listening else DEAF_POLL_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            if not self._waiting:
                continue
            try:
                async with reading(self._engine) as connection:
                    finished = await finished_among(connection, list(self._waiting))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("waiting.database_away", error=type(error).__name__)
                await asyncio.sleep(DEAF_POLL_SECONDS)
                self._look.set()
                continue
            for request_id in finished:
                for event in self._waiting.get(request_id, ()):
                    event.set()
