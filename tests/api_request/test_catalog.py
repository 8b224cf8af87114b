"""Settings and request types: never older than the newest snapshot, whatever happens to cache and notices."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from redis.asyncio import Redis

from configuration.redis_url import redis_database
from fulfilment.catalog import CurrentCatalog, read_catalog
from models.errors import Unauthenticated
from storage.database import connect
from tests.api_request.conftest import Api
from tests.api_request.serving import (
    AIRPORT,
    IST,
    User,
    eventually,
    new_user,
    publish,
    request_type,
    serving,
    setting,
    settings_for,
)
from tests.api_request.test_results import end_listening
from tests.conftest import Networks


@dataclass
class Own:
    """An app whose snapshots are this test's own."""

    url: str
    http: httpx.AsyncClient
    networks: Networks
    user: User
    operator: User = field(default_factory=lambda: new_user("operator"))

    async def publish(self, *records: bytes) -> int:
        return await publish(self.networks, [self.user.record(), self.operator.record(), AIRPORT, *records])

    async def settings(self) -> dict[str, object]:
        return {item["name"]: item["value"] for item in (await self.http.get("/v1/settings")).json()["settings"]}


@pytest.fixture
async def own(fresh: Networks) -> AsyncIterator[Own]:
    user = new_user()
    async with Redis.from_url(redis_database(fresh.servers.redis_url, 4)) as redis:
        await redis.flushdb()
    async with serving(settings_for(fresh, redis_database=4)) as url, user.calls(url) as http:
        yield Own(url, http, fresh, user)


async def test_before_the_first_snapshot_calls_say_that_nothing_has_crossed(own: Own) -> None:
    answer = await own.http.get("/v1/settings")
    assert answer.status_code == 401
    assert "arrived" in answer.json()["detail"]


async def test_a_newer_snapshot_is_told_at_once(own: Own) -> None:
    for number in range(1, 6):
        await own.publish(setting("number", number), request_type(f"type-{number}"))

        async def is_told(number: int = number) -> bool:
            return await own.settings() == {"number": number}

        await eventually(is_told, "the notice of the newer snapshot")
        types = (await own.http.get("/v1/request-types")).json()["request_types"]
        assert [item["name"] for item in types] == ["airport", f"type-{number}"]
    assert (await own.http.post("/v1/requests", json={"type": "type-1"})).status_code == 422
    assert (await own.http.post("/v1/requests", json={"type": "type-5"})).status_code == 202


async def test_what_is_told_comes_from_the_cache_the_second_time_and_may_be_asked_for_conditionally(own: Own) -> None:
    await own.publish(setting("text", "Ünïcode \x00 ✈"), setting("nested", {"a": [1, None, True]}))
    for path in ("/v1/settings", "/v1/request-types"):
        first, second = await own.http.get(path), await own.http.get(path)
        assert first.content == second.content
        assert [found.headers["airlock-source"] for found in (first, second)] == ["database", "cache"]
        etag = first.headers["etag"]
        same = await own.http.get(path, headers={"If-None-Match": f"W/{etag}"})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", etag)
        assert (await own.http.get(path, headers={"If-None-Match": '"other"'})).status_code == 200
    assert await own.settings() == {"text": "Ünïcode \x00 ✈", "nested": {"a": [1, None, True]}}


async def test_request_types_tell_schema_and_limits_and_nothing_of_an_executor(own: Own) -> None:
    await own.publish()
    (told,) = (await own.http.get("/v1/request-types")).json()["request_types"]
    assert told["params_schema"] == json.loads(AIRPORT)["params_schema"]
    assert told.keys() == {"name", "version", "description", "params_schema", "limits"}


async def test_a_key_that_left_the_snapshot_opens_nothing_any_more(own: Own) -> None:
    leaver = new_user()
    await own.publish(leaver.record())
    async with leaver.calls(own.url) as http:
        assert (await http.post("/v1/requests", json=IST)).status_code == 202
        await own.publish()

        async def is_out() -> bool:
            return (await http.get("/v1/requests")).status_code == 401

        await eventually(is_out, "the key is not known any more")
        for refused in [await http.post("/v1/requests", json=IST), await http.get("/v1/settings")]:
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
    assert (await own.http.get("/v1/requests")).status_code == 200


async def test_a_snapshot_that_comes_while_notices_are_lost_is_told(own: Own) -> None:
    await own.publish(setting("number", 1))
    assert await own.settings() == {"number": 1}
    api = Api(own.url, own.networks, iter(()), own.operator)
    await end_listening(api)
    await own.publish(setting("number", 2))

    async def is_told() -> bool:
        return await own.settings() == {"number": 2}

    await eventually(is_told, "the snapshot whose notice nobody heard")


async def test_without_notices_every_call_looks(fresh: Networks) -> None:
    user = new_user()
    catalog = CurrentCatalog(fresh.request.engine)
    assert not catalog.listening
    for number in range(3):
        await publish(fresh, [user.record(), setting("number", number)])
        assert (await catalog.get()).settings[0].value == number


async def test_who_calls_while_the_catalog_is_read_does_not_get_the_one_before(fresh: Networks) -> None:
    """Many calls come in while a notice is being followed: none may be answered from the older snapshot."""
    catalog = CurrentCatalog(fresh.request.engine)
    catalog.listening = True
    for number in range(1, 4):
        await publish(fresh, [setting("number", number)])
        catalog.changed()
        read = await asyncio.gather(*(catalog.get() for _ in range(8)))
        assert [found.sequence for found in read] == [number] * 8


async def test_a_change_while_the_catalog_is_read_is_not_forgotten(fresh: Networks) -> None:
    catalog = CurrentCatalog(fresh.request.engine)
    catalog.listening = True
    reading = asyncio.create_task(catalog.get())
    await asyncio.sleep(0)
    catalog.changed()
    await reading
    await publish(fresh, [setting("number", 1)])
    assert (await catalog.get()).sequence == 1


async def test_the_last_known_catalog_serves_while_the_database_is_away_but_never_an_empty_one(
    fresh: Networks,
) -> None:
    away = connect("postgresql://nobody:x@127.0.0.1:1/none", 2, "test")
    with pytest.raises(OSError, match="Connect call failed"):
        await CurrentCatalog(away).get()
    user = new_user()
    await publish(fresh, [user.record()])
    catalog = CurrentCatalog(fresh.request.engine)
    assert (await catalog.get()).sequence == 1
    catalog._engine = away
    assert (await catalog.get()).sequence == 1
    with pytest.raises(Unauthenticated):
        await catalog.caller(bytes(32))
    await away.dispose()


def test_a_type_whose_schema_this_version_refuses_is_left_out_and_the_others_serve() -> None:
    records = [
        {"kind": "request-type", "name": name, "version": 1, "params_schema": schema}
        for name, schema in (("good", {"type": "object"}), ("bad", {"$ref": "#"}))
    ]
    assert list(read_catalog(1, 1, b"\n".join(json.dumps(record).encode() for record in records)).types) == ["good"]
