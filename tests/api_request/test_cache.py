"""Redis is a cache only: empty, slow, gone or full of nonsense, every read is still right."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import orjson
import pytest
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from cache.redis_cache import REST_SECONDS, result_key, settings_key
from embedded.ports import free_port
from embedded.redis import find_redis_server
from tests.api_request.serving import (
    AIRPORT,
    IST,
    User,
    answer,
    eventually,
    new_user,
    publish,
    result_body,
    serving,
    setting,
    settings_for,
)
from tests.conftest import Networks


class OwnRedis:
    """A Redis that only this file uses and may do everything to."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.client = Redis(port=self.port)
        self.start()

    def start(self) -> None:
        options = f"--port {self.port} --bind 127.0.0.1 --save  --appendonly no --dir {self.directory}".split(" ")
        self._process = subprocess.Popen([find_redis_server(), *options], stdout=subprocess.DEVNULL)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    async def answers(self) -> bool:
        try:
            return bool(await self.client.ping())
        except OSError:
            return False


@pytest.fixture(scope="module")
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OwnRedis]:
    redis = OwnRedis(tmp_path_factory.mktemp("redis"))
    try:
        yield redis
    finally:
        redis.end()


@pytest.fixture
async def redis(_process: OwnRedis) -> AsyncIterator[OwnRedis]:
    await eventually(_process.answers, "Redis answers")
    await _process.client.flushall()
    yield _process
    await _process.client.aclose()


class Reader:
    """A user with one result, and the app."""

    def __init__(self, http: httpx.AsyncClient, networks: Networks, user: User, request_id: str) -> None:
        self.http = http
        self.networks = networks
        self.user = user
        self.request_id = request_id

    async def source(self, wait: int = 0) -> str:
        """Where the result was read; that it is right is checked."""
        found = await self.http.get(f"/v1/requests/{self.request_id}/result?wait={wait}")
        source: str = found.json()["source"]
        assert found.content == result_body(self.request_id)[:-1] + b',"source":"%s"}' % source.encode()
        return source

    async def settings(self) -> tuple[str, object]:
        found = await self.http.get("/v1/settings")
        return found.headers["airlock-source"], found.json()["settings"][0]["value"]

    async def comes_from_the_cache(self) -> None:
        async def cached() -> bool:
            return await self.source() == "cache"

        await eventually(cached, "results come from the cache")


@pytest.fixture
async def reader(fresh: Networks, redis: OwnRedis) -> AsyncIterator[Reader]:
    user = new_user()
    await publish(fresh, [user.record(), AIRPORT, setting("number", 1)])
    async with (
        serving(settings_for(fresh, redis_url=f"redis://127.0.0.1:{redis.port}")) as url,
        user.calls(url) as http,
    ):
        request_id = (await http.post("/v1/requests", json=IST)).json()["id"]
        await answer(fresh, request_id)
        yield Reader(http, fresh, user, request_id)


async def test_flushed_it_is_filled_again_from_the_database(reader: Reader, redis: OwnRedis) -> None:
    for _ in range(2):
        assert [await reader.source(), await reader.source()] == ["database", "cache"]
        assert [(await reader.settings())[0], (await reader.settings())[0]] == ["database", "cache"]
        await redis.client.flushall()


async def test_what_is_cached_does_not_stay_for_ever(reader: Reader, redis: OwnRedis) -> None:
    await reader.source()
    await reader.settings()
    keys = [key async for key in redis.client.scan_iter()]
    assert len(keys) == 2
    for key in keys:
        assert 0 < await redis.client.ttl(key) <= 86_400


async def test_while_it_hangs_reads_come_from_the_database(reader: Reader, redis: OwnRedis) -> None:
    await reader.source()
    await reader.settings()
    redis.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(20):
            assert await reader.source() == "database"
            assert await reader.source(wait=30) == "database"
            assert await reader.settings() == ("database", 1)
            assert (await reader.http.post("/v1/requests", json=IST)).status_code == 202
            assert (await reader.http.get("/readyz")).status_code == 200
    finally:
        redis.signal(signal.SIGCONT)
    await reader.comes_from_the_cache()


async def test_a_snapshot_that_comes_while_it_is_gone_is_told_and_not_undone_when_it_is_back(
    reader: Reader, redis: OwnRedis
) -> None:
    assert await reader.settings() == ("database", 1)
    redis.signal(signal.SIGSTOP)
    await publish(reader.networks, [reader.user.record(), AIRPORT, setting("number", 2)])

    async def is_told() -> bool:
        return (await reader.settings())[1] == 2

    await eventually(is_told, "the newer snapshot")
    redis.signal(signal.SIGCONT)

    async def cached() -> bool:
        source, number = await reader.settings()
        assert number == 2
        return source == "cache"

    await eventually(cached, "the newer snapshot is cached")


async def test_killed_and_started_again_it_is_used_again(reader: Reader, redis: OwnRedis) -> None:
    await reader.source()
    redis.end()
    assert await reader.source() == "database"
    assert await reader.source(wait=30) == "database"
    assert await reader.settings() == ("database", 1)
    redis.start()
    await reader.comes_from_the_cache()
    assert REST_SECONDS < 5


async def test_what_lies_under_another_users_key_is_never_read(reader: Reader, redis: OwnRedis) -> None:
    await reader.source()
    (key,) = [key async for key in redis.client.scan_iter()]
    other = new_user()
    assert key.decode() == result_key(reader.user.user_id, UUID(reader.request_id))
    forged = b'{"request_id": "x", "data": ["forged"]}'
    await redis.client.set(result_key(other.user_id, UUID(reader.request_id)), forged)
    assert await reader.source() == "cache"


POISON: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "cut off": lambda body: body[: len(body) // 2],
    "no JSON": lambda _: b"\xff\x00",
    "no JSON between braces": lambda body: body[:60] + b" \xff " + body[60:],
    "deep": lambda body: body[:-1] + b',"x":' + b"[" * 100_000 + b"}",
    "another request's": lambda _: result_body(str(uuid7())),
    "another request's that names ours": lambda body: result_body(str(uuid7()))[:-1] + b',"x":' + body + b"}",
    "without rows": lambda body: body.replace(b'"data"', b'"other"'),
    "rows that are none": lambda body: orjson.dumps(orjson.loads(body) | {"data": "x"}),
    "a source of its own": lambda body: body[:-1] + b',"source":"database"}',
    "a list in JSON": lambda body: b"[" + body + b"]",
    "false rows of the right form": lambda body: orjson.dumps(orjson.loads(body) | {"data": [{"n": 666}]}),
    "the right bytes without their code": lambda body: body,
    "a code of zeros": lambda body: bytes(16) + body,
}


@pytest.mark.parametrize("kind", ["list", *POISON])
async def test_what_is_no_result_is_not_taken_for_one(reader: Reader, redis: OwnRedis, kind: str) -> None:
    await reader.source()
    (key,) = [key async for key in redis.client.scan_iter()]
    await redis.client.delete(key)
    if kind == "list":
        await redis.client.rpush(key, "a", "b")
    else:
        await redis.client.set(key, POISON[kind](result_body(reader.request_id)))
    assert await reader.source() == "database"
    assert await reader.source() == "cache", "it was replaced"


async def test_a_value_does_not_count_under_another_key(reader: Reader, redis: OwnRedis) -> None:
    """Another's result is never read by copying it to one's own key."""
    other = (await reader.http.post("/v1/requests", json=IST)).json()["id"]
    await answer(reader.networks, other)
    await reader.source()
    (key,) = [key async for key in redis.client.scan_iter()]
    await redis.client.copy(key, result_key(reader.user.user_id, UUID(other)))
    found = (await reader.http.get(f"/v1/requests/{other}/result?wait=20")).json()
    assert (found["source"], found["request_id"]) == ("database", other)


@pytest.mark.parametrize("poison", [b"", b"\xff", b'{"settings":[]}', b'{"settings":[{"name":"number","value":666}]}'])
async def test_false_settings_and_types_in_redis_are_never_shown(
    reader: Reader, redis: OwnRedis, poison: bytes
) -> None:
    types = (await reader.http.get("/v1/request-types")).content
    assert await reader.settings() == ("database", 1)
    keys = [key async for key in redis.client.scan_iter()]
    assert len(keys) == 2
    for key in keys:
        await redis.client.set(key, poison)
    assert await reader.settings() == ("database", 1)
    assert (await reader.http.get("/v1/request-types")).content == types
    assert await reader.settings() == ("cache", 1)


async def test_settings_of_an_older_snapshot_lie_under_another_key(reader: Reader, redis: OwnRedis) -> None:
    await reader.settings()
    assert await redis.client.get(settings_key(1, 1, "settings"))
    await publish(reader.networks, [reader.user.record(), setting("number", 2)])

    async def is_told() -> bool:
        return (await reader.settings())[1] == 2

    await eventually(is_told, "the newer snapshot")
    assert b'"value":1' in (await redis.client.get(settings_key(1, 1, "settings")) or b"")
