"""The short way of the two hot calls answers as the documented way does, to the byte and the header."""

import json
from typing import Any
from uuid import uuid4

import httpx
import pytest

from api.request import direct
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, answer

VOLATILE = ("date", "location")


def told(response: httpx.Response) -> tuple[int, Any, dict[str, str]]:
    """What may be compared: an accepted request has an id of its own."""
    body = response.json()
    if response.status_code == 202 and "ids" in body:
        body = [sorted(body), len(body["ids"]), body["id"] == body["ids"][0]]
    headers = {name: content for name, content in response.headers.items() if name not in VOLATILE}
    return response.status_code, body, headers


class Ways:
    """Counts which way calls take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.short = 0
        for name in ("_result", "_submit"):
            self._count(monkeypatch, name, getattr(direct.Direct, name))

    def _count(self, monkeypatch: pytest.MonkeyPatch, name: str, original: Any) -> None:
        async def counted(*arguments: Any) -> None:
            self.short += 1
            await original(*arguments)

        monkeypatch.setattr(direct.Direct, name, counted)


@pytest.fixture
def ways(monkeypatch: pytest.MonkeyPatch) -> Ways:
    return Ways(monkeypatch)


BODIES = {
    "one": json.dumps(IST),
    "a list": json.dumps([IST, IST]),
    "wrong parameter": json.dumps({"type": "airport", "params": {"iata": "ist"}}),
    "unknown type": json.dumps({"type": "nothing"}),
    "unknown field": json.dumps(IST | {"surprise": 1}),
    "no JSON": "{",
    "nothing": "",
    "empty list": "[]",
}


@pytest.mark.parametrize("what", BODIES)
async def test_a_submission_is_answered_the_same_both_ways(http: httpx.AsyncClient, ways: Ways, what: str) -> None:
    plain = {"Content-Type": "application/json"}
    short = await http.post("/v1/requests", content=BODIES[what], headers=plain)
    assert ways.short == 1
    documented = await http.post(
        "/v1/requests", content=BODIES[what], headers={"Content-Type": "application/json; a=b"}
    )
    assert ways.short == 1
    assert told(short) == told(documented)
    if short.status_code == 202:
        assert short.headers["location"].startswith("/v1/requests")


async def test_a_result_is_answered_the_same_both_ways(http: httpx.AsyncClient, api: Api, ways: Ways) -> None:
    done, pending = [(await http.post("/v1/requests", json=IST)).json()["id"] for _ in range(2)]
    await answer(api.networks, done)
    await http.get(f"/v1/requests/{done}/result")  # from now on it is in the cache
    for request_id in (done, pending, str(uuid4())):
        before = ways.short
        short = await http.get(f"/v1/requests/{request_id}/result")
        assert ways.short == before + 1
        documented = await http.get(f"/v1/requests/{request_id.upper()}/result")
        assert ways.short == before + 1
        assert told(short) == told(documented)


async def test_a_key_that_is_not_known_is_refused_the_same_both_ways(api: Api, ways: Ways) -> None:
    async with httpx.AsyncClient(base_url=api.url, headers={"Authorization": "Bearer alk_unknown"}) as stranger:
        for call in ("GET", f"/v1/requests/{uuid4()}/result"), ("POST", "/v1/requests"):
            short = await stranger.request(*call, json=IST)
            documented = await stranger.request(call[0], call[1] + "?unknown=1", json=IST)
            assert (short.status_code, told(short)) == (401, told(documented))
    assert ways.short == 2


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("?wait=61", {}),
        ("?wait=-1", {}),
        ("?wait=x", {}),
        ("?wait=0&wait=1", {}),
        ("?wait=nan", {}),
        ("", {"If-None-Match": "*"}),
        ("", {"Authorization": "Basic eDp5"}),
    ],
)
async def test_what_is_out_of_the_ordinary_takes_the_documented_way(
    http: httpx.AsyncClient, ways: Ways, path: str, headers: dict[str, str]
) -> None:
    await http.get(f"/v1/requests/{uuid4()}/result{path}", headers=headers)
    assert ways.short == 0


async def test_an_idempotency_key_is_honoured_as_ever(http: httpx.AsyncClient, ways: Ways) -> None:
    first, second = [await http.post("/v1/requests", json=IST, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert first.json() == second.json()
    assert ways.short == 0


async def test_both_ways_are_counted_under_the_route(http: httpx.AsyncClient, api: Api, ways: Ways) -> None:
    request_id = (await http.post("/v1/requests", json=IST)).json()["id"]
    await http.get(f"/v1/requests/{request_id}/result")
    async with api.operator.calls(api.url) as operator:
        metrics = (await operator.get("/metrics")).text
    assert ways.short == 2
    assert 'route="/v1/requests/{request_id}/result",status="202"' in metrics
    assert 'method="POST",route="/v1/requests",status="202"' in metrics
