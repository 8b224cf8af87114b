"""Tending: stale cache keys and what retention lets go, on either network."""

from collections.abc import Awaitable, Callable

import structlog
from redis.exceptions import RedisError
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from cache.redis_cache import PREFIX, Cache, answer_key, settings_key
from execution.request_types import list_request_types
from fulfilment.result_store import find_snapshot
from models.errors import describe
from models.outcomes import MaintenanceOutcome
from models.streams import Network, StreamName
from monitoring.retention import CHUNK, deletable, delete_old, empty_batches
from orchestration.resident import heartbeating

log = structlog.get_logger(__name__)

KEYS_AT_ONCE = 500


class MaintenanceActivities:
    """Safe to run twice: it deletes what is finished and old, and cache keys of versions that are gone."""

    def __init__(self, network: Network, engine: AsyncEngine, cache: Cache, retention_seconds: float) -> None:
        self._network = network
        self._engine = engine
        self._cache = cache
        self._retention = retention_seconds

    @activity.defn
    async def tend(self) -> MaintenanceOutcome:
        """Drop stale cache keys, empty delivered batches and delete old rows, in small transactions."""
        outcome = MaintenanceOutcome()
        async with heartbeating() as beat:
            try:
                outcome.cache_keys_dropped = await self._drop_stale_keys()
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("maintenance.cache_away", error=describe(error))
            outcome.batches_emptied = await self._repeat(lambda: self._empty())
            for table in deletable(self._network):
                outcome.rows_deleted[table] = await self._repeat(lambda table=table: self._delete(table))  # type: ignore[misc]
                beat(outcome)
        return outcome

    async def _repeat(self, step: Callable[[], Awaitable[int]]) -> int:
        total = 0
        while done := await step():
            total += done
            if done < CHUNK:
                break
        return total

    async def _empty(self) -> int:
        async with self._engine.begin() as connection:
            return await empty_batches(connection, self._retention)

    async def _delete(self, table: str) -> int:
        async with self._engine.begin() as connection:
            return await delete_old(connection, self._network, table, self._retention)

    async def _drop_stale_keys(self) -> int:
        """Keys that no reader asks for any more: another snapshot's settings, answers of a changed or retired type."""
        if self._network is Network.REQUEST:
            pattern, current = "settings:*", await self._current_settings()
        else:
            pattern, current = "answer:*", await self._current_answers()
        dropped = 0
        stale: list[str] = []
        async for key in self._cache.keys(pattern):
            if not key.startswith(current):
                stale.append(key)
            if len(stale) >= KEYS_AT_ONCE:
                dropped += await self._cache.drop(*stale)
                stale.clear()
        return dropped + await self._cache.drop(*stale)

    async def _current_settings(self) -> tuple[str, ...]:
        async with self._engine.connect() as connection:
            snapshot = await find_snapshot(connection, StreamName.SETTINGS)
        return (settings_key(snapshot.epoch, snapshot.sequence, ""),) if snapshot else (PREFIX + "none",)

    async def _current_answers(self) -> tuple[str, ...]:
        async with self._engine.connect() as connection:
            types = await list_request_types(connection)
        return tuple(answer_key(kind.name, kind.version, "") for kind in types if kind.retired_at is None)
