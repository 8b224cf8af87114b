"""Callers that wait in this process for something to be committed, in this process or another one."""

import asyncio
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from models.errors import NotFound
from storage.database import AnyRow, autocommit, is_unreachable
from storage.result_store import outcomes_among

log = structlog.get_logger(__name__)

DEAF_POLL_SECONDS = 1.0
"""How often waiters look for themselves while the database's notices do not come in."""


class Broadcast:
    """Rings for all who hold its present `next_event`. Take the next_event before looking, and no send is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def next_event(self) -> asyncio.Event:
        return self._event

    def send(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class FinishedRequests:
    """Lets callers wait until a request has an outcome. One query looks for all who wait, and fetches what they get."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._waiting: defaultdict[UUID, set[_Waiter]] = defaultdict(set)
        self._new: set[UUID] = set()
        self._look = asyncio.Event()
        self._finished = False
        self.listening = False

    async def outcome(self, user_id: UUID, request_id: UUID, seconds: float) -> AnyRow | None:
        """How a request of this user ended (as `storage.result_store.outcomes_among` gives it), waiting for it for so long;
        None where it has not, or where nobody may wait any longer. Raises `NotFound`, or what the database raises.
        """
        waiter = _Waiter(user_id, asyncio.get_running_loop().create_future())
        self._waiting[request_id].add(waiter)
        self._new.add(request_id)
        self._look.set()
        try:
            async with asyncio.timeout(seconds):
                return await waiter.outcome
        except TimeoutError:
            return None
        finally:
            waiters = self._waiting[request_id]
            waiters.discard(waiter)
            if not waiters:
                del self._waiting[request_id]

    def wake_all(self) -> None:
        """Let nobody wait any longer."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.give(None)

    def something_finished(self) -> None:
        """Have the waiters looked after."""
        self._finished = True
        self._look.set()

    async def run(self) -> None:
        """Look after the waiters, for ever."""
        while True:
            try:
                async with asyncio.timeout(None if self.listening else DEAF_POLL_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                self._finished = True
            self._look.clear()
            new, self._new = self._new & self._waiting.keys(), set()
            ids = list(self._waiting) if self._finished else list(new)
            self._finished = False
            if not ids:
                continue
            try:
                async with autocommit(self._engine) as connection:
                    found = await outcomes_among(connection, ids, list(new))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("waiting.database_away", error=type(error).__name__)
                self._tell_new(new, error)
                await asyncio.sleep(DEAF_POLL_SECONDS)
                self.something_finished()
                continue
            for each in found:
                for waiter in self._waiting.get(each.request_id, ()):
                    if each.user_id != waiter.user_id:
                        waiter.fail(_unknown(each.request_id))
                    elif each.closed is not None or each.body is not None:
                        waiter.give(each)
            self._tell_new(new - {each.request_id for each in found})

    def _tell_new(self, ids: Collection[UUID], error: Exception | None = None) -> None:
        """There is no such request, or nobody can say at the moment."""
        for request_id in ids:
            for waiter in self._waiting.get(request_id, ()):
                waiter.fail(error or _unknown(request_id))


@dataclass(frozen=True, eq=False)
class _Waiter:
    user_id: UUID
    outcome: "asyncio.Future[AnyRow | None]"

    def give(self, outcome: AnyRow | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


def _unknown(request_id: UUID) -> NotFound:
    return NotFound(f"There is no request {request_id} of yours")
