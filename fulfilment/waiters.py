"""Callers that read results or wait for them, and all who wait for a commit of this process or another one."""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from cache.redis_cache import Cache, result_key
from fulfilment.request_store import unknown_request
from fulfilment.result_store import outcomes_among
from models.errors import describe
from models.results import is_result_of, result_as_read
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
    """A result's bytes as callers read them, and where they were read: ``cache`` or ``database``."""

    body: bytes
    source: str


class FinishedRequests:
    """Reads results, and lets callers wait for them. All callers of a moment share one look into the cache and then one
    query; a result that the query finds is put into the cache before any caller gets it.
    """

    def __init__(self, engine: AsyncEngine, cache: Cache, cache_seconds: int) -> None:
        self._engine = engine
        self._cache = cache
        self._cache_seconds = cache_seconds
        self._waiting: defaultdict[UUID, set[_Waiter]] = defaultdict(set)
        self._arrived: list[_Waiter] = []
        self._arrival = asyncio.Event()
        self._not_cached: list[_Waiter] = []
        self._look = asyncio.Event()
        self._finished = False
        self.listening = False

    async def outcome(self, user_id: UUID, request_id: UUID, seconds: float) -> Outcome | None:
        """The outcome of a request of this user; wait up to ``seconds`` for it. With 0 seconds, only look.

        Returns None if there is none yet, or after `wake_all`. Raises `NotFound`, or the database's error.
        """
        waiter = _Waiter(user_id, request_id, seconds > 0, asyncio.get_running_loop().create_future())
        self._waiting[request_id].add(waiter)
        self._arrived.append(waiter)
        self._arrival.set()
        try:
            async with asyncio.timeout(seconds or None):
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
        """Serve the callers, for ever. Results in the cache do not wait for the database."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._serve_from_cache())
            group.create_task(self._serve_from_database())

    async def _serve_from_cache(self) -> None:
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            arrived, self._arrived = self._arrived, []
            keys = [result_key(waiter.user_id, waiter.request_id) for waiter in arrived]
            for waiter, cached in zip(arrived, await self._cache.get_many(keys), strict=True):
                if cached is not None and is_result_of(cached, waiter.request_id):
                    waiter.give(Outcome(cached, "cache"))
            self._not_cached += [waiter for waiter in arrived if not waiter.outcome.done()]
            if self._not_cached:
                self._look.set()

    async def _serve_from_database(self) -> None:
        while True:
            try:
                async with asyncio.timeout(None if self.listening else DEAF_POLL_SECONDS):
                    await self._look.wait()
            except TimeoutError:
                self._finished = True
            self._look.clear()
            new, self._not_cached = [waiter for waiter in self._not_cached if not waiter.outcome.done()], []
            new_ids = {waiter.request_id for waiter in new}
            ids = self._waiting.keys() | new_ids if self._finished else new_ids
            self._finished = False
            if not ids:
                continue
            try:
                async with autocommit(self._engine) as connection:
                    found = await outcomes_among(connection, list(ids), list(new_ids))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("waiting.database_away", error=describe(error))
                for waiter in new:
                    waiter.fail(error)
                await asyncio.sleep(DEAF_POLL_SECONDS)
                self.something_finished()
                continue
            for begin in range(0, len(found), AT_ONCE):
                await self._resolve(found[begin : begin + AT_ONCE])
            known = {each.request_id for each in found}
            for waiter in new:
                if waiter.request_id not in known:
                    waiter.fail(unknown_request(waiter.request_id))
                elif not waiter.stays:
                    waiter.give(None)

    async def _resolve(self, found: Sequence[AnyRow]) -> None:
        """Put the outcomes into the cache, then give them to the waiters, so that a second read finds them there."""
        bodies = {
            each.request_id: result_as_read(each.request_id, each.closed, each.closed_at, each.body) for each in found
        }
        fresh = {
            result_key(each.user_id, each.request_id): body
            for each in found
            if (body := bodies[each.request_id]) is not None
            and any(each.user_id == waiter.user_id for waiter in self._waiting.get(each.request_id, ()))
        }
        await self._cache.put_many(fresh, self._cache_seconds)
        for each in found:
            body = bodies[each.request_id]
            for waiter in self._waiting.get(each.request_id, ()):
                if each.user_id != waiter.user_id:
                    waiter.fail(unknown_request(each.request_id))
                elif body is not None:
                    waiter.give(Outcome(body, "database"))


@dataclass(eq=False)
class _Waiter:
    user_id: UUID
    request_id: UUID
    stays: bool
    """Whether it waits if there is no outcome yet."""
    outcome: "asyncio.Future[Outcome | None]"

    def give(self, outcome: Outcome | None) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    def fail(self, error: Exception) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
