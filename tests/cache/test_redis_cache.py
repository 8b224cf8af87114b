"""The cache on a real Redis: bytes in, bytes out, and never a failure, whatever becomes of Redis."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from redis.exceptions import RedisError

from cache import redis_cache
from cache.redis_cache import Cache, answer_key, result_key, settings_key
from embedded.home import Home
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from tests.conftest import Servers


@pytest.fixture
async def cache(servers: Servers) -> AsyncIterator[Cache]:
    cache = Cache(servers.redis_url)
    yield cache
    await cache.aclose()


@pytest.fixture
async def away() -> AsyncIterator[Cache]:
    """Nobody listens there."""
    cache = Cache("redis://:hunter2@127.0.0.1:1")
    yield cache
    await cache.aclose()


def key() -> str:
    return settings_key(1, 1, uuid4().hex)


async def test_bytes_come_back_as_they_went_in(cache: Cache) -> None:
    name, content = key(), bytes(range(256))
    assert await cache.get(name) is None
    await cache.put(name, content, 60)
    assert await cache.get(name) == content


async def test_several_are_kept_at_once_each_for_its_time(cache: Cache) -> None:
    names = [key(), key()]
    await cache.put_many({name: name.encode() for name in names}, 50)
    assert [await cache.get(name) for name in names] == [name.encode() for name in names]
    for name in names:
        assert 0 < await cache._redis.ttl(name) <= 50
    await cache.put_many({}, 50)


async def test_keys_are_found_by_pattern_and_dropped(cache: Cache) -> None:
    tag = uuid4().hex
    wanted = {answer_key(tag, 1, str(number)) for number in range(3)}
    await cache.put_many(dict.fromkeys([*wanted, answer_key(tag + "x", 1, "0")], b""), 60)
    assert {name.decode() async for name in cache.keys(f"answer:{tag}:*")} == wanted
    assert await cache.drop(*wanted) == 3
    assert await cache.drop() == 0
    assert [name async for name in cache.keys(f"answer:{tag}:*")] == []


def test_keys_of_different_owners_snapshots_and_versions_never_meet() -> None:
    a, b = uuid4(), uuid4()
    names = [
        result_key(a, b),
        result_key(b, a),
        settings_key(1, 11, "x"),
        settings_key(11, 1, "x"),
        answer_key("t", 1, "1"),
        answer_key("t", 11, ""),
        answer_key("t-1", 1, ""),
    ]
    assert len(set(names)) == len(names)
    assert all(name.startswith(redis_cache.PREFIX) for name in names)


async def test_a_redis_that_is_away_is_a_miss_and_never_an_error(away: Cache) -> None:
    assert await away.get(key()) is None
    await away.put(key(), b"x", 60)
    assert await away.get(key()) is None


async def test_what_needs_redis_says_that_it_is_away(away: Cache) -> None:
    for call in (away.drop("x"), away.overstaying(b"x"), away.measure(), anext(away.keys("*"))):
        with pytest.raises((RedisError, OSError)) as raised:
            await call
        assert "hunter2" not in str(raised.value)


async def silent(asked: list[bytes]) -> asyncio.Server:
    """Takes connections and what comes over them, and never answers."""

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while content := await reader.read(1000):
            asked.append(content)
        writer.close()

    return await asyncio.start_server(never, "127.0.0.1", 0)


async def test_a_redis_that_does_not_answer_is_left_alone_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_cache, "ANSWER_SECONDS", 0.05)
    asked: list[bytes] = []
    async with await silent(asked) as server:
        cache = Cache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await cache.get("first") is None
        heard = len(asked)
        assert heard
        assert await cache.get("second") is None
        await cache.put("third", b"x", 60)
        assert len(asked) == heard
        cache._rest_until = 0
        assert await cache.get("fourth") is None
        assert len(asked) > heard
        await cache.aclose()


async def test_after_the_pause_one_call_tries_and_the_others_do_not_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(redis_cache, "ANSWER_SECONDS", 0.05)
    asked: list[bytes] = []
    async with await silent(asked) as server:
        cache = Cache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        assert await cache.get("first") is None
        alone = len(asked)
        asked.clear()
        cache._rest_until = 0
        assert await asyncio.gather(*(cache.get(f"reader {number}") for number in range(20))) == [None] * 20
        assert len(asked) == alone
        await cache.aclose()


async def test_more_readers_than_connections_are_no_outage(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(redis_cache, "ANSWER_SECONDS", 30.0)  # a busy machine is not what is tested
    cache, name = Cache(servers.redis_url), key()
    await cache.put(name, b"x", 60)
    monkeypatch.setattr(cache._redis.connection_pool, "timeout", 0.0)
    found = await asyncio.gather(*(cache.get(name) for _ in range(40 * redis_cache.CONNECTIONS)))
    assert set(found) == {b"x", None}
    assert "cache.away" not in caplog.text
    monkeypatch.undo()
    assert await cache.get(name) == b"x"
    await cache.aclose()


async def test_what_was_flushed_or_is_damaged_is_a_miss_and_a_wrong_type_no_error(cache: Cache) -> None:
    name = key()
    await cache.put(name, b"x", 60)
    await cache._redis.delete(name)
    assert await cache.get(name) is None
    await cache._redis.lpush(name, "a list")
    assert await cache.get(name) is None


async def test_a_redis_that_comes_back_is_used_again(tmp_path: Path) -> None:
    home = Home.open(tmp_path)
    redis = Redis(home)
    cache = Cache(redis.url)
    assert await cache.get("x") is None
    supervisor = Supervisor(Terminal(), tmp_path)
    try:
        await supervisor.start(redis.spec())
        cache._rest_until = 0
        await cache.put("x", b"y", 60)
        assert await cache.get("x") == b"y"
    finally:
        await supervisor.stop()
        home.close()
    assert await cache.get("x") is None
    await cache.aclose()


async def test_a_measurement_tells_how_redis_is(cache: Cache) -> None:
    await cache.put(key(), b"x", 60)
    measured = await cache.measure()
    assert (measured["keys"] or 0) >= 1
    assert (measured["used_memory_bytes"] or 0) > 0
    assert set(measured) == {"answer_ms", "used_memory_bytes", "hits", "misses", "evicted", "keys"}


HOSTILE = [
    b"*1\r\n:abc\r\n",
    b":not a number\r\n",
    b"$-7\r\n",
    b"$999999999999999999999\r\n",
    b"*-5\r\n",
    b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    b"*0\r\n",
    b"%1\r\n$1\r\na\r\n$1\r\nb\r\n",
    b"+OK\r\n",
    b"-\x1b]52;c;aGk=\x07 \xff\r\n",
    b"$2\r\n\xff\xfe\r\n",
    b"\xff\xfe\xfd\r\n",
    b"*1\r\n" * 20_000 + b":1\r\n",
    b"*1\r\n*1\r\n$1\r\na\r\n",
    b"\r\n\r\n",
    b"$17\r\nused_memory:minus\r\n",
]


async def answering(reply: bytes) -> asyncio.Server:
    """Answers everything with these bytes, and closes."""

    async def always(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(10_000):
            writer.write(reply)
        writer.close()

    return await asyncio.start_server(always, "127.0.0.1", 0)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
async def test_whatever_answers_instead_of_redis_is_a_miss_and_no_other_error(number: int) -> None:
    async with await answering(HOSTILE[number]) as server:
        cache = Cache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}?protocol=2")
        for call in (lambda: cache.get_many([key(), key()]), lambda: cache.put_many({key(): b"x"}, 5)):
            cache._rest_until = 0
            assert await call() in ([None, None], None)
        with pytest.raises((RedisError, OSError)):
            await cache.measure()
        await cache.aclose()


async def test_what_redis_does_not_say_of_itself_is_unknown(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = {"used_memory": "many", "keyspace_hits": -1, "keyspace_misses": 2**70, "evicted_keys": {"a": 1}}

    async def info() -> dict[str, object]:
        return odd

    monkeypatch.setattr(cache._redis, "info", info)
    measured = await cache.measure()
    assert [measured[name] for name in ("used_memory_bytes", "hits", "misses", "evicted")] == [None] * 4
    assert measured["keys"] is not None


async def test_a_value_of_another_type_is_replaced(cache: Cache) -> None:
    for number, fill in enumerate(("rpush", "sadd", "hset", "xadd")):
        name = key()
        arguments: tuple[object, ...] = ("a", "b") if fill == "hset" else ({"a": "b"},) if fill == "xadd" else ("a",)
        await getattr(cache._redis, fill)(name, *arguments)
        assert await cache.get(name) is None
        await cache.put(name, b"%d" % number, 60)
        assert await cache.get(name) == b"%d" % number


async def test_a_value_counts_only_with_the_code_of_this_networks_processes(servers: Servers) -> None:
    secrets = [b"ours"]
    ours, theirs, bare = (Cache(servers.redis_url, secret) for secret in (lambda: secrets[-1], lambda: b"x", None))
    name, other = key(), key()
    await ours.put(name, b"content", 60)
    assert await ours.get(name) == b"content"
    assert await theirs.get(name) is None
    stored = await ours._redis.get(name)
    assert isinstance(stored, bytes)
    for forged in (b"content", stored[:-1], stored + b"x", b"\0" + stored[1:], b"", stored[:16]):
        await ours._redis.set(name, forged)
        assert await ours.get(name) is None, forged
    await ours._redis.set(other, stored)
    assert await ours.get(other) is None, "it belongs to another key"
    await ours._redis.set(name, stored)
    secrets.append(b"after a rotation")
    assert await ours.get(name) is None
    await ours.put(name, b"", 60)
    assert await ours.get(name) == b""
    for cache in (ours, theirs, bare):
        await cache.aclose()
