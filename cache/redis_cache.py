"""A cache of bytes in Redis. Every failure counts as a miss.

What lies in Redis is hostile: others may write there. Keys stay bytes, and a value counts only with the code that this
network's processes give it (a keyed BLAKE2b hash over key and value, RFC 7693). Others can delete it, or put an older
value of the same key back; they cannot make one.
"""

import hashlib
import hmac
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from uuid import UUID

import structlog
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError

from configuration.logs import OutageLog

log = structlog.get_logger(__name__)

PREFIX = "airlock:"
ANSWER_SECONDS = 0.25
"""Redis must answer within this time; a slower cache does not help."""
CONNECTIONS = 32
"""Connections per process. A caller waits up to `ANSWER_SECONDS` for a free one."""
MAX_SECONDS = 30 * 86_400
"""Longest time to live. A key of ours that would stay longer was not written by us."""
CODE_BYTES = 16
"""Size of the code before each value."""
MAX_COUNT = 2**63 - 1
"""Larger numbers in Redis' own measurements are not believed."""
OURS = re.compile(
    rb"airlock:(result:[0-9a-f-]{36}:[0-9a-f-]{36}|settings:[0-9]{1,19}\.[0-9]{1,19}:[a-z]{1,64}"
    rb"|answer:[a-z0-9-]{1,64}:[0-9]{1,19}:[0-9a-z]{1,64})"
)
"""The form of our keys. All others are somebody else's, and are left alone."""
BROKEN = (RedisError, OSError, TimeoutError, ValueError, TypeError, AttributeError, LookupError, RecursionError)
"""Errors of the client, also for answers that are not Redis' protocol."""
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
    """Reading and writing never raise: an error is a miss. Close the cache with `aclose`.

    ``secret`` gives the present secret of this network's processes. Without it values have no code: for a process that
    reads none.
    """

    def __init__(self, url: str, secret: Callable[[], bytes] | None = None) -> None:
        self._secret = secret
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
        except BROKEN as error:
            self._failed(error)
            return nothing
        self._answered()
        if not isinstance(found, list) or len(found) != len(keys):
            return nothing
        return [self._opened(key, each) for key, each in zip(keys, found, strict=True)]

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
                    pipeline.set(key, self._code(key, content) + content, ex=min(seconds, MAX_SECONDS))
                await pipeline.execute()
        except BROKEN as error:
            self._failed(error)
        else:
            self._answered()

    async def keys(self, pattern: str = "*") -> AsyncIterator[bytes]:
        """Keys of ours, below the prefix, that match a glob pattern. Raises ``RedisError`` if Redis does not answer."""
        async for key in self._redis.scan_iter(match=PREFIX + pattern, count=1000):
            if isinstance(key, bytes) and OURS.fullmatch(key):
                yield key

    async def overstaying(self, *keys: bytes) -> list[bytes]:
        """Those of these keys that have no time to live, or a longer one than we give. Raises ``RedisError``."""
        if not keys:
            return []
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.ttl(key)
            left = await pipeline.execute()
        return [key for key, seconds in zip(keys, left, strict=True) if seconds == -1 or seconds > MAX_SECONDS]

    async def drop(self, *keys: str | bytes) -> int:
        """Delete keys and return how many existed. Raises ``RedisError`` if Redis does not answer."""
        dropped: int = await self._redis.unlink(*keys) if keys else 0
        return dropped

    async def measure(self) -> dict[str, int | float | None]:
        """Response time in milliseconds, memory and number of keys; None for what Redis does not say.

        Raises ``RedisError`` if Redis does not answer, or not in its protocol.
        """
        try:
            return await self._measure()
        except (RedisError, OSError, TimeoutError):
            raise
        except BROKEN as error:
            raise InvalidResponse("the answer is not in Redis' protocol") from error

    async def _measure(self) -> dict[str, int | float | None]:
        started = time.perf_counter()
        await self._redis.ping()
        answered = (time.perf_counter() - started) * 1000
        info = await self._redis.info()
        return {
            "answer_ms": round(answered, 3),
            "used_memory_bytes": _count(info.get("used_memory")),
            "hits": _count(info.get("keyspace_hits")),
            "misses": _count(info.get("keyspace_misses")),
            "evicted": _count(info.get("evicted_keys")),
            "keys": _count(await self._redis.dbsize()),
        }

    def _code(self, key: str, content: bytes) -> bytes:
        if self._secret is None:
            return b""
        code = hashlib.blake2b(key=self._secret(), digest_size=CODE_BYTES)
        code.update(key.encode() + b"\0")
        code.update(content)
        return code.digest()

    def _opened(self, key: str, found: object) -> bytes | None:
        if not isinstance(found, bytes) or self._secret is None:
            return found if isinstance(found, bytes) else None
        content = found[CODE_BYTES:]
        return content if hmac.compare_digest(found[:CODE_BYTES], self._code(key, content)) else None

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


def _count(told: object) -> int | None:
    """A number of Redis' about itself, if it can be one."""
    return told if type(told) is int and 0 <= told <= MAX_COUNT else None
