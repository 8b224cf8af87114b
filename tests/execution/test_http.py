"""The http executor against a real server: typed templates, pointers, bounds, and secrets that stay where they are."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from execution import http as http_executor
from execution.answer import ExecutionFailed
from execution.http import HttpCalls, fill, resolve
from execution.registry import Executors
from models.executors import HttpExecutor
from models.requests import Limits
from tests.execution.asking import ask, failure, kind
from tests.execution.service import Service, serving

SEARCH = {
    "query": {"bool": {"must": [{"match": {"city": "{{ city }}"}}], "boost": "{{boost}}"}},
    "size": "{{ limit }}",
    "only_open": "{{ only_open }}",
    "tags": "{{ tags }}",
    "note": "for {{ city }}, at most {{ limit }}",
}


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service


def call(service: Service, **spec: Any) -> HttpExecutor:
    return HttpExecutor(url=service.url + "/search", **spec)


async def test_placeholders_keep_their_types_and_text_around_one_makes_text(
    executors: Executors, service: Service
) -> None:
    params = {"city": "İstanbul", "limit": 3, "only_open": False, "tags": ["a", 1]}
    await ask(executors, kind(call(service, body=SEARCH)), params)
    assert orjson.loads(service.asked[0].body) == {
        "query": {"bool": {"must": [{"match": {"city": "İstanbul"}}], "boost": None}},
        "size": 3,
        "only_open": False,
        "tags": ["a", 1],
        "note": "for İstanbul, at most 3",
    }
    assert service.asked[0].headers["content-type"] == "application/json"


def test_a_parameter_that_looks_like_json_or_a_placeholder_stays_a_value() -> None:
    hostile = '"}, "match_all": {}, "x": "{{ other }}'
    assert fill({"a": "{{ p }}", "b": "<{{ p }}>"}, {"p": hostile, "other": "!"}) == {
        "a": hostile,
        "b": f"<{hostile}>",
    }


DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "m~n": 8, "k": {"~1": 5}}


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/m~0n", 8),
        ("/k/~01", 5),
    ],
)
def test_pointers_resolve_as_rfc_6901_shows(pointer: str, found: object) -> None:
    assert resolve(DOCUMENT, pointer) == found


@pytest.mark.parametrize(
    "pointer",
    ["/nothing", "/foo/2", "/foo/-1", "/foo/01", "/foo/+1", "/foo/-", "/foo/0/x", "/foo/\N{ARABIC-INDIC DIGIT ONE}"],
)
def test_a_pointer_to_nothing_fails_without_showing_itself(pointer: str) -> None:
    with pytest.raises(ExecutionFailed) as raised:
        resolve(DOCUMENT, pointer)
    assert raised.value.reason == "answer-without-rows"
    assert pointer not in str(raised.value)


async def test_rows_and_total_come_from_where_the_pointers_say(executors: Executors, service: Service) -> None:
    service.answer(b'{"hits":{"total":{"value":1234},"hits":[{"_id":"1"},{"_id":"2"}]}}')
    spec = call(service, body={}, rows="/hits/hits", total="/hits/total/value")
    _, body = await ask(executors, kind(spec))
    assert (body.data, body.returned, body.total, body.truncated) == ([{"_id": "1"}, {"_id": "2"}], 2, 1234, True)


async def test_rows_beyond_the_limit_are_cut_off_and_counted(executors: Executors, service: Service) -> None:
    service.answer(b"[1,2,3,4]")
    _, body = await ask(executors, kind(call(service), Limits(rows=3)))
    assert (body.data, body.total, body.truncated) == ([1, 2, 3], 4, True)


async def test_an_answer_that_is_one_object_is_one_row(executors: Executors, service: Service) -> None:
    service.answer(b'{"a":1}')
    _, body = await ask(executors, kind(call(service)))
    assert (body.data, body.total) == ([{"a": 1}], 1)


@pytest.mark.parametrize("total", [b'"many"', b"1.5", b"true", b"null"])
async def test_a_total_that_is_no_whole_number_fails(executors: Executors, service: Service, total: bytes) -> None:
    service.answer(b'{"rows":[],"total":' + total + b"}")
    reason, message = await failure(executors, kind(call(service, rows="/rows", total="/total")))
    assert reason == "answer-without-total"
    assert "/total" not in message


async def test_a_total_beyond_what_the_database_counts_is_bounded(executors: Executors, service: Service) -> None:
    service.answer(b'{"rows":[],"total":18446744073709551615}')
    finished, _ = await ask(executors, kind(call(service, rows="/rows", total="/total")))
    assert finished.total == 2**63 - 1


@pytest.mark.parametrize("hosts", [[], ["localhost"], ["127.0.0.1:1"], ["27.0.0.1"]])
async def test_a_host_that_is_not_allowed_is_never_called(
    executors: Executors, service: Service, hosts: list[str]
) -> None:
    strict = HttpCalls(hosts)
    reason, message = await failure(
        Executors(executors.sql, strict, executors.python, executors.cache), kind(call(service))
    )
    await strict.aclose()
    assert reason == "host-not-allowed"
    assert "127.0.0.1" not in message
    assert service.asked == []


async def test_a_user_part_in_the_address_does_not_pass_for_an_allowed_host(service: Service) -> None:
    calls = HttpCalls(["allowed.example"])
    spec = HttpExecutor(url=service.url.replace("http://", "http://allowed.example@"))
    with pytest.raises(ExecutionFailed, match="not allowed"):
        await calls.execute(spec, {}, Limits(), {})
    await calls.aclose()
    assert service.asked == []


async def test_a_redirect_is_not_followed(executors: Executors, service: Service) -> None:
    service.answer(b"", 302, Location=service.url + "/elsewhere")
    reason, _ = await failure(executors, kind(call(service)))
    assert reason == "call-refused"
    assert [asked.path for asked in service.asked] == ["/search"]


async def test_secret_headers_are_sent_and_never_in_a_message(executors: Executors, service: Service) -> None:
    spec = call(service, secret_headers={"Authorization": "search.token"})
    secrets = {"search.token": "Bearer hunter2", "other": "unused"}
    service.answer(b'{"error":"Bearer hunter2 is wrong"}', 403)
    reason, message = await failure(executors, kind(spec), secrets=secrets)
    assert service.asked[0].headers["authorization"] == "Bearer hunter2"
    assert (reason, message) == ("call-refused", "the called service answered with status 403")


@pytest.mark.parametrize("value", ["hunter2\r\nX: y", "hunter2 é", "hunter2\n"])
async def test_a_secret_that_no_header_can_hold_fails_without_showing_it(
    executors: Executors, service: Service, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    _, message = await failure(executors, kind(call(service, secret_headers={"A": "s"})), secrets={"s": value})
    assert "hunter2" not in message


async def test_a_missing_secret_fails_before_anything_is_sent_and_without_its_name(
    executors: Executors, service: Service
) -> None:
    reason, message = await failure(executors, kind(call(service, secret_headers={"A": "ledger.token"})))
    assert reason == "secret-missing"
    assert "ledger" not in message
    assert service.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_service_that_is_away_for_a_moment_is_asked_again(
    executors: Executors, service: Service, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    service.answers = [(status, {}, b""), (status, {}, b""), (200, {}, b'["there"]')]
    _, body = await ask(executors, kind(call(service)))
    assert body.data == ["there"]


async def test_a_service_that_stays_away_fails_after_three_tries_without_its_address(
    executors: Executors, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execution.registry.PAUSE_SECONDS", 0.0)
    service.answer(b"stack trace of the service", 500)
    reason, message = await failure(executors, kind(call(service)))
    assert (reason, len(service.asked)) == ("source-unavailable", 3)
    assert "127.0.0.1" not in message
    assert "stack trace" not in message


async def test_a_service_that_does_not_answer_in_time_fails_as_timeout(executors: Executors, service: Service) -> None:
    service.answers = [(0, {}, b"")]
    reason, _ = await failure(executors, kind(call(service), Limits(timeout=0.05)))
    assert (reason, len(service.asked)) == ("timeout", 1)


@pytest.mark.parametrize("body", [b"<html>", b"", b"NaN", b'{"a":', b"\xff"])
async def test_an_answer_that_is_not_json_fails(executors: Executors, service: Service, body: bytes) -> None:
    service.answer(body)
    reason, _ = await failure(executors, kind(call(service)))
    assert reason == "answer-not-json"


async def test_an_answer_that_is_too_large_fails_before_it_is_held(
    executors: Executors, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_executor, "MAX_ANSWER_BYTES", 100)
    service.answer(b"[" + b" " * 200 + b"]")
    reason, _ = await failure(executors, kind(call(service)))
    assert reason == "answer-too-large"
