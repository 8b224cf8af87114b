"""Bytes in Redis, with every failure turned into a miss."""

import time
from collections.abc import AsyncIterator, Mapping
from uuid import UUID

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from models.errors import describe

log = structlog.get_logger(__name__)

PREFIX = "airlock:"
ANSWER_SECONDS = 0.25
"""Time that Redis has to answer: a cache slower than this is no help."""
CONNECTIONS = 32
"""Per process. Who finds all of them in use waits, as long as for an answer: a cache that is busy is not away."""
REST_SECONDS = 1.0
"""Time for which Redis is left alone after it failed, so that a dead one costs next to nothing."""


def result_key(user_id: UUID, request_id: UUID) -> str:
    """A result belongs to its owner: nobody else's key can name it."""
    return f"{PREFIX}result:{user_id}:{request_id}"


def settings_key(epoch: int, sequence: int, part: str) -> str:
    """Part of a settings snapshot: the snapshot's number is in the key, so an old one is never read as a new one."""
    return f"{PREFIX}settings:{epoch}.{sequence}:{part}"


def answer_key(type_name: str, version: int, params_sha256: str) -> str:
    """An executor's answer, for request types that allow its reuse."""
    return f"{PREFIX}answer:{type_name}:{version}:{params_sha256}"


class Cache:
    """A cache that never raises: what it cannot get, it does not have. Close it with `aclose`."""

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

    async def aclose(self) -> None:
        await self._redis.aclose()

    async def get(self, key: str) -> bytes | None:
        """The bytes under this key, or None."""
        if self._resting():
            return None
        try:
            found = await self._redis.get(key)
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)
            return None
        return found if isinstance(found, bytes) else None

    async def put(self, key: str, content: bytes, seconds: int) -> None:
        """Keep bytes for a time, if Redis is there."""
        await self.put_many({key: content}, seconds)

    async def put_many(self, contents: Mapping[str, bytes], seconds: int) -> None:
        """Keep several in one round trip, if Redis is there."""
        if self._resting() or not contents:
            return
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key, content in contents.items():
                    pipeline.set(key, content, ex=seconds)
                await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            self._failed(error)

    async def keys(self, pattern: str) -> AsyncIterator[str]:
        """Keys below the prefix that match a glob pattern; raises ``RedisError`` when Redis is away."""
        async for key in self._redis.scan_iter(match=PREFIX + pattern, count=1000):
            yield key.decode()

    async def drop(self, *keys: str) -> int:
        """Delete keys; gives how many there were. Raises ``RedisError`` when Redis is away."""
        dropped: int = await self._redis.unlink(*keys) if keys else 0
        return dropped

    async def measure(self) -> dict[str, int | float]:
        """Milliseconds to answer, memory and keys; raises ``RedisError`` when Redis is away."""
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
        return time.monotonic() < self._rest_until

    def _failed(self, error: Exception) -> None:
        self._rest_until = time.monotonic() + REST_SECONDS
        log.warning("cache.away", error=describe(error), rest_seconds=REST_SECONDS)
