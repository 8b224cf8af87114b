"""The Celery build's request API keeps its promises: a comparison with one that does not would show nothing."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import httpx
import pytest

from bench.celery.link_signature import HEADER, fits, sign
from bench.celery.request_api import app
from bench.celery.tables import REQUEST
from tests.conftest import Servers

AIRPORT = {"type": "airport", "params": {"iata": "IST"}}


@pytest.fixture
async def http(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A caller of the API, which has a database of its own."""
    name = f"bench_{uuid4().hex}"
    await servers.administer(f"CREATE DATABASE {name}")
    url = servers.postgres.superuser_url.rsplit("/", 1)[0] + f"/{name}"
    connection = await asyncpg.connect(url)
    await connection.execute(REQUEST)
    await connection.close()
    for variable, value in (("DATABASE", url), ("API_KEY", "caller"), ("LINK_KEY", "link")):
        monkeypatch.setenv(f"BENCH_{variable}", value)
    headers = {"Authorization": "Bearer caller"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://request", headers=headers) as client,
    ):
        yield client
    await servers.administer(f"DROP DATABASE {name}")


async def over_link(http: httpx.AsyncClient, method: str, target: str, content: Any = None) -> Any:
    """Call as the response network does; gives what the signed answer says."""
    body = b"" if content is None else json.dumps(content).encode()
    answer = await http.request(method, target, content=body, headers={HEADER: sign("link", method, target, body)})
    assert answer.status_code == 200, answer.text
    assert fits("link", method, target, answer.content, answer.headers[HEADER])
    return answer.json()


async def submitted(http: httpx.AsyncClient, *requests: dict[str, Any], key: str = "key") -> list[str]:
    answer = await http.post("/v1/requests", json=list(requests), headers={"Idempotency-Key": key})
    assert answer.status_code == 202, answer.text
    ids: list[str] = answer.json()["ids"]
    return ids


async def test_a_key_gives_the_same_ids_and_stores_its_requests_once(http: httpx.AsyncClient) -> None:
    ids = await submitted(http, AIRPORT, AIRPORT)
    assert await submitted(http, AIRPORT, AIRPORT) == ids
    offered = (await over_link(http, "GET", "/link/requests?limit=10"))["requests"]
    assert sorted(each["request_id"] for each in offered) == sorted(ids)


async def test_requests_stay_on_offer_until_they_are_said_to_be_taken(http: httpx.AsyncClient) -> None:
    first, second = await submitted(http, AIRPORT, AIRPORT)
    for _ in range(2):
        assert len((await over_link(http, "GET", "/link/requests?limit=10"))["requests"]) == 2
    await over_link(http, "POST", "/link/requests/taken", {"request_ids": [first]})
    offered = (await over_link(http, "GET", "/link/requests?limit=10"))["requests"]
    assert [each["request_id"] for each in offered] == [second]


async def test_of_two_results_the_first_stays(http: httpx.AsyncClient) -> None:
    (request_id,) = await submitted(http, AIRPORT)
    for body in ('{"n": 1}', '{"n": 2}'):
        await over_link(http, "POST", "/link/results", {"results": [{"request_id": request_id, "body": body}]})
    answer = await http.get(f"/v1/requests/{request_id}/result", params={"wait": 5})
    assert (answer.status_code, answer.json()) == (200, {"n": 1, "source": "database"})


async def test_who_waits_is_woken_by_the_result(http: httpx.AsyncClient) -> None:
    (request_id,) = await submitted(http, AIRPORT)
    path = f"/v1/requests/{request_id}/result"
    waiting = asyncio.create_task(http.get(path, params={"wait": 60}))
    while not app.state.waiting.is_awaited(UUID(request_id)):  # noqa: ASYNC110, nothing tells us
        await asyncio.sleep(0)
    await over_link(http, "POST", "/link/results", {"results": [{"request_id": request_id, "body": '{"n": 1}'}]})
    async with asyncio.timeout(30):  # half of what it would wait for if nobody woke it
        assert (await waiting).status_code == 200


async def test_no_result_and_no_request_are_told_apart(http: httpx.AsyncClient) -> None:
    (request_id,) = await submitted(http, AIRPORT)
    assert (await http.get(f"/v1/requests/{request_id}/result")).status_code == 202
    assert (await http.get(f"/v1/requests/{uuid4()}/result")).status_code == 404


async def test_of_two_versions_of_a_setting_the_newer_stays_whatever_comes_last(http: httpx.AsyncClient) -> None:
    for value, version in (("new", 2), ("old", 1)):
        setting = {"name": "banner", "value": value, "version": version}
        await over_link(http, "POST", "/link/settings", {"settings": [setting]})
    assert (await http.get("/v1/settings")).json()["settings"][0]["value"] == "new"


@pytest.mark.parametrize("path", ["/link/results", "/link/settings", "/link/requests/taken"])
async def test_what_was_changed_on_the_way_is_refused(http: httpx.AsyncClient, path: str) -> None:
    headers = {HEADER: sign("link", "POST", path, b'{"results":[],"settings":[],"request_ids":[]}')}
    answer = await http.post(path, content=b'{"results":[],"settings":[],"request_ids":[0]}', headers=headers)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    "request_", [{"type": "unknown"}, {"type": "airport", "params": {"iata": "no code"}}, "airport", {}]
)
async def test_a_request_that_does_not_fit_its_type_is_refused_with_all_of_its_list(
    http: httpx.AsyncClient, request_: Any
) -> None:
    answer = await http.post("/v1/requests", json=[AIRPORT, request_], headers={"Idempotency-Key": "key"})
    assert answer.status_code == 422
    assert not (await over_link(http, "GET", "/link/requests?limit=10"))["requests"]
