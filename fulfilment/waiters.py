"""Callers that wait in this process for something to be committed, in this process or another one."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from cache.redis_cache import Cache, result_key
from fulfilment.result_store import outcomes_among
from models.errors import NotFound, describe
from models.results import result_as_read
from storage.database import AnyRow, autocommit, is_unreachable

log = structlog.get_logger(__name__)

DEAF_POLL_SECONDS = 1.0
"""How often waiters look for themselves while the database's notices do not come in."""
AT_ONCE = 500
"""Results that are put into the cache in one round trip: more would hold up the calls in between."""


class Broadcast:
    """Rings for all who hold its present `next_event`. Take the next_event before looking, and no send is missed."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def next_event(self) -> asyncio.Event:
        return self._event

    def send(self) -> None:
        self._event.set()
        self._event = asyncio.Event()


class Outcome(NamedTuple):
    """A result's bytes as callers read them."""

    body: bytes
    was_there: bool
    """Before the caller began to wait, so somebody may have read it before. Otherwise it is in the cache by now."""


class FinishedRequests:
    """Lets callers wait until a request has an outcome. One query looks for all who wait, and fetches what they get;
    one round trip puts it into the cache.
    """

    def __init__(self, engine: AsyncEngine, cache: Cache, cache_seconds: int) -> None:
        self._engine = engine
        self._cache = cache
        self._cache_seconds = cache_seconds
        self._waiting: defaultdict[UUID, set[_Waiter]] = defaultdict(set)
        self._new: set[UUID] = set()
        self._look = asyncio.Event()
        self._finished = False
        self.listening = False

    async def outcome(self, user_id: UUID, request_id: UUID, seconds: float) -> Outcome | None:
        """How a request of this user ended, waiting for it for so long; None where it has not, or where nobody may wait
        any longer. Raises `NotFound`, or what the database raises.
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
            beginners = [waiter for request_id in new for waiter in self._waiting[request_id]]
            if not ids:
                continue
            try:
                async with autocommit(self._engine) as connection:
                    found = await outcomes_among(connection, ids, list(new))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("waiting.database_away", error=describe(error))
                self._tell_new(new, error)
                await asyncio.sleep(DEAF_POLL_SECONDS)
                self.something_finished()
                continue
            for begin in range(0, len(found), AT_ONCE):
                await self._tell(found[begin : begin + AT_ONCE])
            self._tell_new(new - {each.request_id for each in found})
            for waiter in beginners:
                waiter.has_waited = True

    async def _tell(self, found: Sequence[AnyRow]) -> None:
        """Give the waiters what was found, when it is in the cache: their next reading comes from there."""
        ended = {
            each.request_id: result_as_read(each.request_id, each.closed, each.closed_at, each.body) for each in found
        }
        fresh = {
            result_key(each.user_id, each.request_id): body
            for each in found
            if (body := ended[each.request_id]) is not None
            and any(waiter.has_waited for waiter in self._waiting.get(each.request_id, ()))
        }
        await self._cache.put_many(fresh, self._cache_seconds)
        for each in found:
            body = ended[each.request_id]
            for waiter in self._waiting.get(each.request_id, ()):
                if each.user_id != waiter.user_id:
                    waiter.fail(_unknown(each.request_id))
                elif body is not None:
                    waiter.give(Outcome(body, not waiter.has_waited))

    def _tell_new(self, ids: Collection[UUID], error: Exception | None = None) -> None:
        """There is no such request, or nobody can say at the moment."""
        for request_id in ids:
            for waiter in self._waiting.get(request_id, ()):
                waiter.fail(error or _unknown(request_id))


@dataclass(eq=False)
class _Waiter:
    user_id: UUID
    outcome: "asyncio.Future[Outcome | None]"
    has_waited: bool = False
    """There was nothing yet when it was first looked for."""

    def give(self, outcome: Outcome | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)


def _unknown(request_id: UUID) -> NotFound:
    return NotFound(f"There is no request {request_id} of yours")
