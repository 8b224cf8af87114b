"""Who may call, what every answer carries, and what is refused before it is read."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from api.response import create_app
from configuration.settings import ResponseSettings
from storage.database import execute
from tests.api_response.conftest import USER_KEY, Api, running

OPEN = {"/healthz", "/readyz"}


def operations(api: Api) -> list[tuple[str, str]]:
    found = [
        (method.upper(), path.replace("{request_id}", "01900000-0000-7000-8000-000000000000"))
        for path, methods in api.app.openapi()["paths"].items()
        for method in methods
        if path not in OPEN
    ]
    assert len(found) > 20
    return found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic b2xnYTp4"}, 401),
        ({"Authorization": "Bearer " + "x" * 5000}, 401),
        ({"Authorization": f"Bearer {USER_KEY}"}, 403),
    ],
    ids=["none", "unknown", "another scheme", "too long", "a user's"],
)
async def test_every_route_needs_an_operators_key(api: Api, header: dict[str, str], status: int) -> None:
    del api.http.headers["Authorization"]
    for method, path in operations(api):
        answer = await api.http.request(method, path, headers=header)
        assert answer.status_code == status, (method, path)
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("table", ["users", "api_keys"])
async def test_a_key_that_was_taken_away_opens_nothing(api: Api, table: str) -> None:
    async with api.networks.response.engine.begin() as connection:
        await execute(connection, f"UPDATE {table} SET active = false")
    assert (await api.http.get("/v1/settings")).status_code == 401


async def test_probes_need_no_key(api: Api) -> None:
    del api.http.headers["Authorization"]
    assert (await api.http.get("/healthz")).json() == {"status": "alive"}
    assert (await api.http.get("/readyz")).json() == {"status": "ready", "away": []}


@pytest.mark.parametrize(
    "path", ["/v1/settings", "/v1/settings/none", "/nowhere", "/healthz", "/docs", "/v1/users?x=1"]
)
async def test_every_answer_carries_security_headers(api: Api, path: str) -> None:
    headers = (await api.http.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert ("script-src 'self'" in headers["content-security-policy"]) == (path == "/docs")


async def test_a_large_body_is_refused_whether_it_says_its_size_or_not(api: Api) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(50):
            sent += 100_000
            yield b"x" * 100_000

    for content in (b"x" * 2_000_000, chunks()):
        answer = await api.http.put("/v1/settings/big", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:airlock:problem:too-large"
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert 0 < sent < 1_500_000, "read on after the bound"


async def test_without_the_database_calls_say_so(settings: ResponseSettings) -> None:
    away = settings.model_validate(settings.model_dump() | {"database_url": "postgresql://a:b@127.0.0.1:1/c"})
    async with running(create_app(away)) as http:
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.json()) == (503, {"status": "not-ready", "away": ["database"]})
        assert (await http.get("/healthz")).status_code == 200
        answer = await http.get("/v1/settings")
        assert answer.status_code == 503
        assert answer.json()["type"] == "urn:airlock:problem:unavailable"
        assert answer.headers["retry-after"]
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_an_error_that_should_not_happen_is_a_problem_and_tells_nothing(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("secret detail")

    monkeypatch.setattr("api.response.settings_routes.list_settings", broken)
    answer = await api.http.get("/v1/settings")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"


async def test_metrics_count_by_route_and_never_by_what_a_caller_wrote(api: Api) -> None:
    await api.http.get("/v1/settings/some-name")
    await api.http.get("/made-up-path")
    text = (await api.http.get("/metrics")).text
    assert 'airlock_http_requests_total{method="GET",route="/v1/settings/{name}",status="404"} 1.0' in text
    assert 'route="unmatched",status="404"' in text
    assert "some-name" not in text
    assert "made-up-path" not in text
    assert 'airlock_stream_pending_records{direction="out",stream="results"} 0.0' in text
    assert 'airlock_build_info{network="response"' in text
