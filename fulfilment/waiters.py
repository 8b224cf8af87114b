"""Callers of this process that wait for a commit, of this process or another one."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from cache.redis_cache import Cache, result_key
from fulfilment.request_store import unknown_request
from fulfilment.result_store import outcomes_among
from models.errors import describe
from models.results import result_as_read
from storage.database import AnyRow, autocommit, is_unreachable

log = structlog.get_logger(__name__)

DEAF_POLL_SECONDS = 1.0
"""Seconds from one query for the waiters to the next while no notices are received."""
AT_ONCE = 500
"""Results put into the cache in one round trip. More would delay other calls."""


class Broadcast:
    """Wakes everyone who waits. Call `next_event` before looking at the state, so that no `send` is missed."""

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
    """The result existed before the caller began to wait. Otherwise it has just been put into the cache."""


class FinishedRequests:
    """Lets callers wait until a request has an outcome. One query serves all waiting callers, and one round trip puts
    the results into the cache.
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
        """Wait up to ``seconds`` for the outcome of a request of this user. Return None if there is none yet, or after
        `wake_all`. Raises `NotFound`, or the database's error.
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
        """End all waiting; every waiting `outcome` returns None."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.give(None)

    def something_finished(self) -> None:
        """Look for outcomes for all waiters."""
        self._finished = True
        self._look.set()

    async def run(self) -> None:
        """Serve the waiters, for ever."""
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
            new_waiters = [waiter for request_id in new for waiter in self._waiting[request_id]]
            if not ids:
                continue
            try:
                async with autocommit(self._engine) as connection:
                    found = await outcomes_among(connection, ids, list(new))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("waiting.database_away", error=describe(error))
                self._fail_new(new, error)
                await asyncio.sleep(DEAF_POLL_SECONDS)
                self.something_finished()
                continue
            for begin in range(0, len(found), AT_ONCE):
                await self._resolve(found[begin : begin + AT_ONCE])
            self._fail_new(new - {each.request_id for each in found})
            for waiter in new_waiters:
                waiter.has_waited = True

    async def _resolve(self, found: Sequence[AnyRow]) -> None:
        """Put the outcomes into the cache, then give them to the waiters, so that a second read finds them there."""
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
                    waiter.fail(unknown_request(each.request_id))
                elif body is not None:
                    waiter.give(Outcome(body, not waiter.has_waited))

    def _fail_new(self, ids: Collection[UUID], error: Exception | None = None) -> None:
        """Fail the new waiters of these requests: with ``error``, or because there is no such request."""
        for request_id in ids:
            for waiter in self._waiting.get(request_id, ()):
                waiter.fail(error or unknown_request(request_id))


@dataclass(eq=False)
class _Waiter:
    user_id: UUID
    outcome: "asyncio.Future[Outcome | None]"
    has_waited: bool = False
    """The first query found no outcome."""

    def give(self, outcome: Outcome | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
