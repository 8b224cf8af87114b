"""The database goes away and comes back: calls say so, nothing is half stored, and the app heals by itself."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import make_url

from storage.database import value
from tests.api_request.proxy import Proxy, proxied
from tests.api_request.serving import (
    AIRPORT,
    IST,
    User,
    eventually,
    new_user,
    publish,
    serving,
    setting,
    settings_for,
)
from tests.conftest import Networks


@dataclass
class Behind:
    """An app that reaches its database through a proxy."""

    proxy: Proxy
    http: httpx.AsyncClient
    networks: Networks
    user: User

    async def submit(self, **headers: str) -> httpx.Response:
        return await self.http.post("/v1/requests", json=IST, headers=headers)

    async def stored(self) -> int:
        async with self.networks.request.engine.connect() as connection:
            found: int = await value(connection, "SELECT count(*) FROM requests")
        return found


@pytest.fixture
async def behind(fresh: Networks) -> AsyncIterator[Behind]:
    user = new_user()
    await publish(fresh, [AIRPORT, user.record(), setting("colour", "blue")])
    address = make_url(fresh.request.url)
    assert address.host
    assert address.port
    async with proxied(address.host, address.port) as proxy:
        through = address.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        async with serving(settings_for(fresh, database_url=through)) as url, user.calls(url) as http:
            try:
                yield Behind(proxy, http, fresh, user)
            finally:
                proxy.heal()


async def test_calls_say_so_and_nothing_is_stored_and_all_is_well_when_it_is_back(behind: Behind) -> None:
    accepted = (await behind.submit()).json()["id"]
    await behind.proxy.cut()
    for refused in [
        await behind.submit(),
        await behind.http.get(f"/v1/requests/{accepted}"),
        await behind.http.get(f"/v1/requests/{accepted}/result"),
        await behind.http.delete(f"/v1/requests/{accepted}"),
        await behind.http.get("/v1/requests"),
        await behind.http.get("/v1/health"),
    ]:
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:airlock:problem:unavailable")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["content-type"] == "application/problem+json"
    assert (await behind.http.get("/readyz")).json() == {"status": "not-ready", "away": ["database"]}
    assert (await behind.http.get("/readyz")).status_code == 503
    assert (await behind.http.get("/healthz")).status_code == 200
    assert await behind.stored() == 1
    behind.proxy.heal()
    assert (await behind.submit()).status_code == 202
    assert (await behind.http.get("/readyz")).json() == {"status": "ready", "away": []}
    assert await behind.stored() == 2


async def test_what_was_known_of_the_settings_is_still_told(behind: Behind) -> None:
    assert (await behind.http.get("/v1/settings")).status_code == 200
    await behind.proxy.cut()
    answer = await behind.http.get("/v1/settings")
    assert answer.json()["settings"] == [{"name": "colour", "value": "blue", "version": 1}]
    assert [item["name"] for item in (await behind.http.get("/v1/request-types")).json()["request_types"]] == [
        "airport"
    ]


async def test_a_commit_whose_answer_is_lost_is_found_by_its_idempotency_key(behind: Behind) -> None:
    await behind.submit()

    def lose_the_answer(passing: bytes) -> bytes | None:
        if b"COMMIT;" in passing:  # not BEGIN … READ COMMITTED
            behind.proxy.to_client = lambda _: None
        return passing

    behind.proxy.to_server = lose_the_answer
    unknown = await behind.submit(**{"Idempotency-Key": "k1"})
    assert unknown.status_code == 503
    assert "Idempotency-Key" in unknown.json()["detail"]
    behind.proxy.heal()

    async def is_stored() -> bool:
        return await behind.stored() == 2

    await eventually(is_stored, "the commit that nobody heard of")
    again = await behind.submit(**{"Idempotency-Key": "k1"})
    assert again.status_code == 202
    assert await behind.stored() == 2
