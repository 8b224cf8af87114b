"""What holds for every answer: who may call, security headers, problem documents, methods, probes and metrics."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from api.body_limit import BodyLimit
from api.request import create_app
from fulfilment.result_store import store_snapshot
from models.streams import StreamName
from monitoring.measurement_store import settle_alerts
from storage.database import execute
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, eventually, serving, settings_for

OPEN = {"/healthz", "/readyz"}


def operations(api: Api) -> list[tuple[str, str]]:
    """Every operation that needs a key, as method and path."""
    paths = create_app(settings_for(api.networks)).openapi()["paths"]
    found = [
        (method.upper(), path.replace("{request_id}", "01900000-0000-7000-8000-000000000000"))
        for path, methods in paths.items()
        for method in methods
        if path not in OPEN and not path.startswith("/link/")
    ]
    assert len(found) >= 9
    return found


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic b2xnYTp4"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": b"Bearer \xff\xfe"},
    ],
    ids=["none", "unknown", "another scheme", "empty", "too long", "not ASCII"],
)
async def test_every_call_needs_a_key(api: Api, header: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=api.url, headers=header, trust_env=False) as stranger:
        for method, path in operations(api):
            refused = await stranger.request(method, path)
            assert refused.status_code == 401, (method, path)
            assert refused.headers["content-type"] == "application/problem+json"
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert refused.json()["type"] == "urn:airlock:problem:unauthenticated"


async def test_a_body_is_not_looked_at_before_the_key(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as stranger:
        assert (await stranger.post("/v1/requests", content=b"{")).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_is_read_whatever_its_case(api: Api, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {api.user().key}"}
    async with httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False) as caller:
        assert (await caller.get("/v1/settings")).status_code == 200


async def test_metrics_are_for_operators_and_name_no_callers_words(api: Api, http: httpx.AsyncClient) -> None:
    refused = await http.get("/metrics")
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:airlock:problem:forbidden")
    await http.get("/v1/requests/made-up-id")
    await http.get("/made-up-path")
    await http.request("MADEUP", "/v1/settings")
    async with api.operator.calls(api.url) as operator:
        told = await operator.get("/metrics")
    assert told.status_code == 200
    assert told.headers["content-type"].startswith("text/plain")
    assert 'airlock_http_requests_total{method="GET",route="/v1/requests/{request_id}",status="422"}' in told.text
    assert 'route="unmatched",status="404"' in told.text
    assert 'method="other"' in told.text
    assert 'airlock_build_info{network="request"' in told.text
    assert "made-up" not in told.text
    assert "MADEUP" not in told.text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/settings", 200),
        ("POST", "/v1/requests", 202),
        ("GET", "/v1/requests/1", 422),
        ("GET", "/nowhere", 404),
        ("GET", "/v1/requests/", 404),
        ("GET", "//v1/requests", 404),
        ("GET", "/v1/%2e%2e/metrics", 404),
        ("PUT", "/v1/requests", 405),
        ("HEAD", "/v1/settings", 405),
        ("OPTIONS", "/v1/requests", 405),
        ("TRACE", "/v1/requests", 405),
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/docs", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/link/v1/streams/results", 401),
    ],
)
async def test_every_answer_is_guarded_by_headers_and_every_refusal_is_a_problem(
    http: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    found = await http.request(method, path, json=IST if method == "POST" else None)
    assert found.status_code == status, found.text
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.headers["x-frame-options"] == "DENY"
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert found.headers["cache-control"] in ("no-store", "private, no-cache")
    assert "access-control-allow-origin" not in found.headers
    assert "python" not in found.headers.get("server", "").lower()
    if status == 405:
        assert found.headers["allow"]
    if status >= 400 and method != "HEAD":
        assert found.headers["content-type"] == "application/problem+json"
        problem = found.json()
        assert (problem["status"], problem["type"].partition(":problem:")[0]) == (status, "urn:airlock")
        assert problem["title"]
        assert problem["detail"]
    if method == "HEAD":
        assert found.content == b""


async def test_after_a_refused_method_the_connection_still_serves(http: httpx.AsyncClient) -> None:
    for method in ("HEAD", "OPTIONS", "PUT"):
        assert (await http.request(method, "/v1/settings")).status_code == 405
        assert (await http.get("/v1/settings")).status_code == 200


async def test_an_error_that_should_not_happen_is_a_problem_and_tells_nothing(
    api: Api, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("secret detail")

    monkeypatch.setattr("api.request.request_routes.list_requests", broken)
    failed = await http.get("/v1/requests")
    assert (failed.status_code, failed.json()["type"]) == (500, "urn:airlock:problem:internal")
    assert "secret" not in failed.text
    assert failed.headers["content-type"] == "application/problem+json"
    assert failed.headers["x-content-type-options"] == "nosniff"


async def test_probes_need_no_key_and_tell_no_details(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as stranger:
        assert (await stranger.get("/healthz")).json() == {"status": "alive"}
        assert (await stranger.get("/readyz")).json() == {"status": "ready", "away": []}


async def test_health_tells_the_settings_in_force_and_every_stream(http: httpx.AsyncClient, api: Api) -> None:
    number = await api.publish()

    async def is_told() -> bool:
        return bool((await http.get("/v1/health")).json()["settings"] == f"1.{number}")

    await eventually(is_told, "the newer snapshot")
    health = (await http.get("/v1/health")).json()
    assert health["response_network"] is None
    assert {stream["stream"] for stream in health["streams"]} == {"settings", "requests", "results", "health"}


@pytest.mark.parametrize(("age", "status"), [(700, "ok"), (800, "unknown")])
async def test_the_response_networks_status_is_unknown_when_its_report_is_old(
    http: httpx.AsyncClient, api: Api, age: int, status: str
) -> None:
    sealed_at, report = datetime.now(UTC) - timedelta(seconds=age), b'{"status": "ok", "alerts": []}'
    async with api.networks.request.engine.begin() as connection:
        await execute(connection, "DELETE FROM snapshots WHERE stream = 'health'")
        await store_snapshot(connection, StreamName.HEALTH, 1, 1, sealed_at, report)
    try:
        assert (await http.get("/v1/health")).json()["response_network"]["status"] == status
    finally:
        async with api.networks.request.engine.begin() as connection:
            await execute(connection, "DELETE FROM snapshots WHERE stream = 'health'")


async def test_health_lists_what_is_wrong_here_and_tells_operators_what_to_do(
    http: httpx.AsyncClient, api: Api
) -> None:
    assert (await http.get("/v1/health")).json()["alerts"] == []
    async with api.networks.request.engine.begin() as connection:
        await settle_alerts(connection, {"workflow-stuck:apply": "it is stuck: look at it"})
    try:
        (seen,) = (await http.get("/v1/health")).json()["alerts"]
        assert (seen["name"], seen["message"], "T" in seen["raised_at"]) == ("workflow-stuck:apply", None, True)
        async with api.operator.calls(api.url) as operator:
            (told,) = (await operator.get("/v1/health")).json()["alerts"]
        assert told == seen | {"message": "it is stuck: look at it"}
    finally:
        async with api.networks.request.engine.begin() as connection:
            await settle_alerts(connection, {}, ["workflow-stuck:apply"])


async def test_a_body_that_does_not_arrive_in_time_is_given_up(api: Api) -> None:
    def hurry(app: FastAPI) -> None:
        build = app.build_middleware_stack
        app.build_middleware_stack = lambda: BodyLimit(build(), seconds=0.2)  # type: ignore[method-assign]

    async with serving(settings_for(api.networks), hurry) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        head = f"POST /v1/requests HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.user().key}\r\n"
        writer.write(head.encode() + b"Content-Length: 100\r\n\r\n{")
        async with asyncio.timeout(20):
            answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"urn:airlock:problem:too-slow" in answer
        writer.close()
        async with api.user().calls(url) as caller:  # who waits for an answer is not who keeps us waiting
            request_id = (await caller.post("/v1/requests", json=IST)).json()["id"]
            assert (await caller.get(f"/v1/requests/{request_id}/result?wait=0.5")).status_code == 202


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /v1/requests HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/requests HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzzz\r\n",
        b"GET /v1/requests\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 1_000_000 + b"\r\n\r\n",
    ],
    ids=["two lengths", "chunked and length", "NUL", "TLS", "large header"],
)
async def test_what_is_no_sound_http_harms_nobody_else(api: Api, http: httpx.AsyncClient, raw: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rsplit(":", 1)[1]))
    try:
        writer.write(raw)
        await writer.drain()
        writer.write_eof()
        async with asyncio.timeout(20):
            answered = await reader.read()
        assert b" 200 " not in answered
        assert b" 202 " not in answered
    except OSError:  # cut off at once
        pass
    finally:
        writer.close()
    assert (await http.get("/v1/settings")).status_code == 200
