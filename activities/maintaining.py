"""Maintains either network: drops stale cache keys and applies retention."""

from collections.abc import Awaitable, Callable
from functools import partial

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from cache.redis_cache import BROKEN, PREFIX, Cache, answer_key, settings_key
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
    """Safe to run twice: it deletes only rows that are finished and old, and cache keys of old versions."""

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
            except BROKEN as error:
                log.warning("maintenance.cache_away", error=describe(error))
            outcome.batches_emptied = await self._in_chunks(partial(empty_batches, age_seconds=self._retention))
            for table in deletable(self._network):
                delete = partial(delete_old, network=self._network, table=table, age_seconds=self._retention)
                outcome.rows_deleted[table] = await self._in_chunks(delete)
                beat(outcome)
        return outcome

    async def _in_chunks(self, step: Callable[[AsyncConnection], Awaitable[int]]) -> int:
        """Repeat this step, each time in a transaction of its own, until less than a chunk is left; returns the sum."""
        total, done = 0, CHUNK
        while done >= CHUNK:
            async with self._engine.begin() as connection:
                done = await step(connection)
            total += done
        return total

    async def _drop_stale_keys(self) -> int:
        """Drop the settings of older snapshots, the answers of request types that were changed or retired, and all keys
        of ours that would stay for ever.
        """
        if self._network is Network.REQUEST:
            kind, current = "settings:", await self._current_settings()
        else:
            kind, current = "answer:", await self._current_answers()
        ours, kept = (PREFIX + kind).encode(), tuple(key.encode() for key in current)
        dropped = 0
        found: list[bytes] = []

        async def drop() -> int:
            stale = [key for key in found if key.startswith(ours) and not key.startswith(kept)]
            overstaying = await self._cache.overstaying(*found)
            found.clear()
            return await self._cache.drop(*{*stale, *overstaying})

        async for key in self._cache.keys():
            found.append(key)
            if len(found) >= KEYS_AT_ONCE:
                dropped += await drop()
        return dropped + await drop()

    async def _current_settings(self) -> tuple[str, ...]:
        async with self._engine.connect() as connection:
            snapshot = await find_snapshot(connection, StreamName.SETTINGS)
        return (settings_key(snapshot.epoch, snapshot.sequence, ""),) if snapshot else (PREFIX + "none",)

    async def _current_answers(self) -> tuple[str, ...]:
        async with self._engine.connect() as connection:
            types = await list_request_types(connection)
        return tuple(answer_key(kind.name, kind.version, "") for kind in types if kind.retired_at is None)
