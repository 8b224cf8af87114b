"""Running one request: every way of failing gives a result, and answers are given again only where that is right."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import orjson
import pytest

from cache.redis_cache import Cache, answer_key
from execution.registry import ExecutableType, Executors
from models.requests import Limits, ResultBody
from tests.execution import functions
from tests.execution.asking import ask, failure, kind, python, request, sql

REUSE = Limits(reuse=60)


@pytest.fixture
def name() -> str:
    """A type's name that no other test uses: the cache is shared."""
    return f"asked-{uuid4().hex[:8]}"


@pytest.fixture
async def without_redis(executors: Executors) -> AsyncIterator[Executors]:
    cache = Cache("redis://127.0.0.1:1")
    yield Executors(executors.sql, executors.http, executors.python, cache)
    await cache.aclose()


async def test_an_unknown_type_fails_with_its_name(executors: Executors) -> None:
    finished = await executors.result(request(), {}, {})
    assert (finished.status, finished.reason) == ("failed", "unknown-type")
    assert b"'asked'" in finished.body


async def test_parameters_that_do_not_fit_the_schema_fail_and_nothing_is_run(executors: Executors) -> None:
    functions.calls.clear()
    schema = {"type": "object", "properties": {"count": {"type": "integer", "maximum": 3}}}
    reason, message = await failure(executors, kind(python("rows"), schema=schema), {"count": 4})
    assert reason == "invalid-params"
    assert "3" in message
    assert functions.calls == []


@pytest.mark.parametrize(
    ("closed", "status"), [({"cancelled": True}, "cancelled"), ({"deadline_passed": True}, "expired")]
)
async def test_a_request_that_is_closed_already_is_not_run(
    executors: Executors, closed: dict[str, bool], status: str
) -> None:
    functions.calls.clear()
    finished = await executors.result(request(**closed), {"asked": kind(python("rows"))}, {})
    body = ResultBody.model_validate_json(finished.body)
    assert (finished.status, finished.reason, body.status) == (status, status, status)
    assert body.duration_ms is None
    assert functions.calls == []


async def test_a_cancelled_request_is_cancelled_even_when_its_type_is_gone(executors: Executors) -> None:
    assert (await executors.result(request(cancelled=True), {}, {})).status == "cancelled"


async def test_what_nobody_foresaw_fails_with_its_kind_only(
    executors: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise LookupError("SELECT secret FROM ledger")

    monkeypatch.setattr(executors.sql, "execute", broken)
    reason, message = await failure(executors, kind(sql("SELECT 1")))
    assert reason == "executor-failed"
    assert "LookupError" in message
    assert "ledger" not in message


async def test_a_message_of_any_length_gives_a_result_of_bounded_size(executors: Executors) -> None:
    schema = {"type": "object", "properties": {"a": {"const": 1}}}
    finished, _ = await ask(executors, kind(python("rows"), schema=schema), {"a": "x" * 1_000_000})
    assert finished.reason == "invalid-params"
    assert len(finished.body) < 5000


async def asked_twice(executors: Executors, first: ExecutableType, then: ExecutableType, count: int = 2) -> int:
    """How many times the function ran."""
    functions.calls.clear()
    one, _ = await ask(executors, first, {"count": 2})
    two, body = await ask(executors, then, {"count": count})
    assert one.request_id != two.request_id
    assert body.request_id == two.request_id
    assert body.data == [{"n": number} for number in range(count)]
    return len(functions.calls)


async def test_an_answer_is_given_again_for_the_same_parameters_within_its_time(
    executors: Executors, name: str
) -> None:
    asked = kind(python("rows"), REUSE, name=name)
    assert await asked_twice(executors, asked, asked) == 1


async def test_an_answer_is_not_given_again_where_the_type_does_not_allow_it(executors: Executors, name: str) -> None:
    asked = kind(python("rows"), name=name)
    assert await asked_twice(executors, asked, asked) == 2


async def test_an_answer_is_not_given_for_other_parameters_or_by_another_version(
    executors: Executors, name: str
) -> None:
    asked = kind(python("rows"), REUSE, name=name)
    assert await asked_twice(executors, asked, asked, count=3) == 2
    later = kind(python("rows"), REUSE, name=name, version=2)
    assert await asked_twice(executors, asked, later) == 1, "the first of the two was kept before"


async def test_an_answer_given_again_is_the_same_byte_for_byte(executors: Executors, name: str) -> None:
    document = """'{"b" : 1.50,\n "a":"é"}'::json"""
    asked = kind(sql(f"SELECT {document} AS document FROM data.items"), Limits(reuse=60, rows=2), name=name)
    first, one = await ask(executors, asked)
    again, two = await ask(executors, asked)
    assert data_of(first.body) == data_of(again.body)
    assert (one.total, one.truncated) == (two.total, two.truncated) == (20, True)


def data_of(body: bytes) -> bytes:
    return body[body.index(b'"data":') : body.index(b',"executed_at"')]


async def test_a_failure_is_not_kept(executors: Executors, name: str) -> None:
    asked = kind(python("rows"), REUSE, name=name)
    await failure(executors, asked, {"count": "x"})
    assert [key async for key in executors.cache.keys(f"answer:{name}:*")] == []


async def test_with_redis_away_every_request_is_executed(without_redis: Executors, name: str) -> None:
    asked = kind(python("rows"), REUSE, name=name)
    assert await asked_twice(without_redis, asked, asked) == 2


async def test_a_damaged_answer_in_redis_is_a_miss(executors: Executors, name: str) -> None:
    asked = kind(python("rows"), REUSE, name=name)
    await ask(executors, asked, {"count": 2})
    [key] = [key async for key in executors.cache.keys(f"answer:{name}:*")]
    assert key.startswith(answer_key(name, 1, "").encode())
    for torn in POISON:
        await executors.cache.put(key.decode(), torn, 60)
        before = len(functions.calls)
        _, body = await ask(executors, asked, {"count": 2})
        assert (body.returned, len(functions.calls)) == (2, before + 1), torn[:40]
    await executors.cache._redis.delete(key)
    await executors.cache._redis.hset(key, "a", "b")
    _, body = await ask(executors, asked, {"count": 2})
    assert body.returned == 2


POISON = [
    b"",
    b"\xff\xfe torn",
    b"null\n{",
    b"2\n[1\n2],[3",
    b"-1",
    b"true\n1",
    b'"2"\n1\n2',
    b"1e3\n1",
    b"9" * 5000,
    b"9223372036854775808\n1",
    b"[" * 100_000,
    b"null\n" + b"[" * 100_000,
    b'null\n{"a":1}\n\xff',
    b"null\n",
]


async def test_requests_executed_at_the_same_time_get_their_own_results(executors: Executors) -> None:
    asked = kind(sql("SELECT CAST(:n AS integer) AS n"))
    results = await asyncio.gather(*(ask(executors, asked, {"n": number}) for number in range(10)))
    assert [orjson.loads(finished.body)["data"] for finished, _ in results] == [[{"n": n}] for n in range(10)]
