"""A cache of bytes in Redis. Every failure counts as a miss."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from configuration.logs import OutageLog

log = structlog.get_logger(__name__)

PREFIX = "airlock:"
ANSWER_SECONDS = 0.25
"""Redis must answer within this time; a slower cache does not help."""
CONNECTIONS = 32
"""Connections per process. A caller waits up to `ANSWER_SECONDS` for a free one."""
REST_SECONDS = 1.0
"""Pause after a failure in which Redis is not called, so that an unreachable Redis costs little time. After it one call
tries Redis and all others skip it, since thousands of readers would otherwise time out at once."""


def result_key(user_id: UUID, request_id: UUID) -> str:
    """The key of a result. It contains the owner's id, so another user cannot read it."""
    return f"{PREFIX}result:{user_id}:{request_id}"


def settings_key(epoch: int, sequence: int, part: str) -> str:
    """The key of a part of a settings snapshot. It contains the snapshot's number, so old parts are never used."""
    return f"{PREFIX}settings:{epoch}.{sequence}:{part}"


def answer_key(type_name: str, version: int, params_sha256: str) -> str:
    """The key of an executor's answer, for request types that allow reuse."""
    return f"{PREFIX}answer:{type_name}:{version}:{params_sha256}"


class Cache:
    """Reading and writing never raise: an error is a miss. Close the cache with `aclose`."""

    def __init__(self, url: str) -> None:
        self._redis: Redis = Redis.from_pool(
            BlockingConnectionPool.from_url(
                url,
                max_connections=CONNECTIONS,
                timeout=ANSWER_SECONDS,
                socket_timeout=ANSWER_SECONDS,
                socket_connect_timeout=ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
                health_check_interval=0,
            )
        )
        self._rest_until = 0.0
        self._outage = OutageLog("cache.away", "cache.back", log)
        self._away = False

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def get(self, key: str) -> bytes | None:
        """The cached bytes, or None."""
        (found,) = await self.get_many([key])
        return found

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The cached bytes of each key in one round trip, or None for each that is not there."""
        nothing: list[bytes | None] = [None] * len(keys)
        if self._resting() or not keys:
            return nothing
        try:
            found = await self._redis.mget(keys)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return nothing
        self._answered()
        return [each if isinstance(each, bytes) else None for each in found]

    async def put(self, key: str, content: bytes, seconds: int) -> None:
        """Store bytes for ``seconds``, if Redis answers."""
        await self.put_many({key: content}, seconds)

    async def put_many(self, contents: Mapping[str, bytes], seconds: int) -> None:
        """Store several values in one round trip, if Redis answers."""
        if self._resting() or not contents:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, content in contents.items():
                    pipeline.set(key, content, ex=seconds)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
        else:
            self._answered()

    async def keys(self, pattern: str) -> AsyncIterator[str]:
        """Keys below the prefix that match a glob pattern. Raises ``RedisError`` if Redis does not answer."""
        async for key in self._redis.scan_iter(match=PREFIX + pattern, count=1000):
            yield key.decode()

    async def drop(self, *keys: str) -> int:
        """Delete keys and return how many existed. Raises ``RedisError`` if Redis does not answer."""
        dropped: int = await self._redis.unlink(*keys) if keys else 0
        return dropped

    async def measure(self) -> dict[str, int | float]:
        """Response time in milliseconds, memory and number of keys. Raises ``RedisError`` if Redis does not answer."""
        started = time.perf_counter()
        await self._redis.ping()
        answered = (time.perf_counter() - started) * 1000
        info = await self._redis.info()
        return {
            "answer_ms": round(answered, 3),
            "used_memory_bytes": int(info.get("used_memory", 0)),
            "hits": int(info.get("keyspace_hits", 0)),
            "misses": int(info.get("keyspace_misses", 0)),
            "evicted": int(info.get("evicted_keys", 0)),
            "keys": await self._redis.dbsize(),
        }

    def _resting(self) -> bool:
        now = time.monotonic()
        if now < self._rest_until:
            return True
        if self._away:
            self._rest_until = now + REST_SECONDS  # this call tries, alone
        return False

    def _failed(self, error: Exception) -> None:
        if isinstance(error.__cause__, TimeoutError) and not self._away:
            return  # all connections are in use: a miss, and no sign that Redis is away
        self._rest_until = time.monotonic() + REST_SECONDS
        self._away = True
        self._outage.failed(error, passes=False)

    def _answered(self) -> None:
        if self._away:
            self._away, self._rest_until = False, 0.0
            self._outage.succeeded()
