"""Canaries in every place that holds a secret, real traffic of all four streams, and every byte of it looked through.

The same looking goes on in the whole suite, for what is secret in any test: `_nothing_secret_crosses` in
tests/conftest.py.
"""

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import zstandard
from cryptography.hazmat.primitives import serialization
from pydantic import SecretStr
from redis.asyncio import Redis
from temporalio.testing import ActivityEnvironment
from uuid_utils.compat import uuid7

from activities.executing import ExecutionActivities
from activities.monitoring import MonitoringActivities
from api.response.preview import PREVIEWED, preview
from cache.redis_cache import Cache
from configuration.cadences import DEFAULT_CADENCES
from configuration.redis_url import redis_database
from exchange.transfer.sealing import Sealer
from exchange.wire.keys import LinkKeys
from execution import registry
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from models.streams import StreamName
from people.users import put_api_key, put_user
from settings.setting_store import put_setting
from settings.snapshot import public_records
from storage.database import execute, rows
from tests.activities.crossing import LINK
from tests.api_request.serving import User, eventually
from tests.execution.service import Service, serving
from tests.security import canaries
from tests.security.crossing_bytes import Crossing, as_text, readings, spellings
from tests.verification.conftest import served, verification_networks, world
from tests.verification.world import REQUESTS, RESULTS, SETTINGS, World

__all__ = ["served", "verification_networks", "world"]

OWNER = User(uuid7(), canaries.USER_KEY)


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as service:
        yield service


@pytest.fixture
async def planted(world: World, service: Service) -> AsyncIterator[World]:
    """A world that knows every canary; afterwards no users are left, whose keys would keep the tables from emptying."""
    await plant(world, service)
    yield world
    async with world.networks.response.engine.begin() as connection:
        await execute(connection, "DELETE FROM api_keys")
        await execute(connection, "DELETE FROM users")


def types(service: Service) -> dict[str, dict[str, Any]]:
    """Request types that succeed and that fail, with every executor."""
    call = {"kind": "http", "url": f"{service.url}/{canaries.HTTP_PATH}", "secret_headers": {"X-Token": "token"}}
    python = {"kind": "python"}
    return {
        "sql": {"kind": "sql", "source": canaries.SOURCE, "query": f"SELECT 1 AS n /* {canaries.QUERY} */"},
        "sql-fails": {"kind": "sql", "source": canaries.SOURCE, "query": f"SELECT * FROM {canaries.QUERY_THAT_FAILS}"},
        "sql-divides": {
            "kind": "sql",
            "source": canaries.SOURCE,
            "query": f"SELECT 1/0 AS {canaries.QUERY_THAT_FAILS}",
        },
        "sql-away": {"kind": "sql", "source": canaries.SOURCE_AWAY, "query": f"SELECT '{canaries.QUERY}'"},
        "sql-unknown": {"kind": "sql", "source": canaries.SOURCE + "x", "query": "SELECT 1"},
        "http": call | {"body": {"text": canaries.HTTP_BODY}},
        "http-fails": call | {"rows": "/nowhere", "body": {"text": canaries.HTTP_BODY}},
        "http-elsewhere": {"kind": "http", "url": f"http://elsewhere.example/{canaries.HTTP_PATH}"},
        "http-secret-missing": call | {"secret_headers": {"X-Token": canaries.HTTP_BODY}},
        "python": python | {"function": f"{canaries.PYTHON_MODULE}:answers"},
        "python-fails": python | {"function": f"{canaries.PYTHON_MODULE}:raises"},
        "python-missing": python | {"function": f"{canaries.PYTHON_MODULE}:missing"},
    }


async def plant(world: World, service: Service) -> None:
    """Everything that the response network knows."""
    async with world.networks.response.engine.begin() as connection:
        await put_setting(connection, "token", canaries.SECRET_SETTING, "secret", "test")
        await put_setting(connection, "deep", {"a": [{"b": canaries.SECRET_IN_JSON}]}, "secret", "test")
        await put_setting(connection, "banner", canaries.PUBLIC_SETTING, "public", "test")
        for name, executor in types(service).items():
            await put_request_type(connection, name, "", {"type": "object"}, {"timeout": 5}, executor, "test")
        for name, role, key, user_id in (
            ("owner", "user", canaries.USER_KEY, OWNER.user_id),
            ("olga", "operator", canaries.OPERATOR_KEY, uuid7()),
            ("former", "user", canaries.FORMER_KEY, uuid7()),
        ):
            await put_api_key(connection, await put_user(connection, user_id, name, role), key, "test")
        await execute(connection, "UPDATE users SET active = false WHERE name = 'former'")


def secrets_of(world: World) -> dict[str, str | bytes]:
    """Name → what must not cross in any form."""
    planted = {
        name.lower(): text for name, text in vars(canaries).items() if name.isupper() and not name.startswith("PUBLIC")
    }
    response, request = world.networks.response, world.networks.request
    return planted | {
        "hash_of_a_former_key": hashlib.sha256(canaries.FORMER_KEY.encode()).hexdigest(),
        "response_private_key": raw(response.keys),
        "request_private_key": raw(request.keys),
        "response_database": response.url,
        "request_database": request.url,
    }


def raw(keys: LinkKeys) -> bytes:
    none = serialization.NoEncryption()
    return keys.signing.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, none)


async def live(world: World, service: Service, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """All four streams, `verify`, a repair, traces: everything that calls over the link. Gives the results."""
    monkeypatch.setattr(registry, "PAUSE_SECONDS", 0.0)
    response = world.networks.response
    away = f"postgresql://nobody:{canaries.PASSWORD}@127.0.0.1:1/none"
    sources = {canaries.SOURCE: SecretStr(response.url), canaries.SOURCE_AWAY: SecretStr(away)}
    service.answer(json.dumps([{"colour": "green"}]).encode(), X_Told=canaries.HTTP_ANSWER)
    cache = Cache(world.networks.servers.redis_url)
    executors = Executors(
        SqlSources(sources, 2),
        HttpCalls([service.url.removeprefix("http://")]),
        PythonFunctions([canaries.PYTHON_MODULE]),
        cache,
    )
    sealer = Sealer(response.keys, LINK)

    async def orchestration() -> dict[str, Any]:
        return {"schedules": {}, "workers": {"polling": 1, "identities": [canaries.SOURCE]}}

    there = replace(world, executing=ExecutionActivities(response.engine, sealer, executors, 4))
    measuring = MonitoringActivities(response.engine, cache, sealer, DEFAULT_CADENCES, orchestration)
    async with response.engine.begin() as connection:
        await sealer.seal_snapshot(connection, SETTINGS, await public_records(connection))
    await there.carry_on()
    async with OWNER.calls(world.url) as http:

        async def is_known() -> bool:
            return (await http.get("/v1/request-types")).status_code == 200

        await eventually(is_known, "the caller's key has crossed")
        params = {"colour": canaries.PUBLIC_PARAM}
        asked = [{"type": name, "params": params if name == "python" else {}} for name in types(service)]
        ids = (await http.post("/v1/requests", json=asked)).json()["ids"]
        await http.delete(f"/v1/requests/{(await http.post('/v1/requests', json=asked[0])).json()['id']}")
        await there.carry_on()
        await ActivityEnvironment().run(measuring.measure)
        await there.delivery.drain(StreamName.HEALTH, lambda _: None)
        await there.apply(StreamName.HEALTH)
        await there.delivery.drain(RESULTS, lambda _: None)  # a heartbeat
        async with world.networks.request.engine.begin() as connection:
            await execute(connection, "DELETE FROM results WHERE request_id = :id", id=ids[0])
        await there.repair()
        for request_id in ids:
            await there.link.trace(request_id)
            assert (await http.get(f"/v1/requests/{request_id}/trace")).status_code == 200
        results = [(await http.get(f"/v1/requests/{request_id}/result")).json() for request_id in ids]
    await executors.aclose()
    await cache.aclose()
    return results


async def everything_held(world: World) -> bytes:
    """All that a captured request network has: its database and its Redis, every column and value."""
    held: list[bytes] = []
    async with world.networks.request.engine.connect() as connection:
        for (name,) in await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
            for row in await rows(connection, f"SELECT * FROM {name}"):
                held += [item if isinstance(item, bytes) else str(item).encode() for item in row]
    redis = Redis.from_url(redis_database(world.networks.servers.redis_url, 3))
    async for key in redis.scan_iter():
        held += [bytes(item) for item in (key, await redis.get(key)) if isinstance(item, bytes)]
    await redis.aclose()
    return b"\n".join(held)


async def test_no_secret_is_in_any_byte_that_crosses_or_in_anything_that_the_request_network_holds(
    planted: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = planted
    with Crossing().forbidding(**secrets_of(world)) as crossing:
        results = await live(world, service, monkeypatch)
    by_type = dict(zip(types(service), results, strict=True))
    completed = {name for name, result in by_type.items() if result["status"] == "completed"}
    assert completed == {"sql", "http", "python"}, "the executors did what they were planted for"
    assert by_type["http"]["data"] == [{"colour": "green"}]
    assert {"x-token"} <= service.asked[0].headers.keys(), "and the secret was used"

    assert not crossing.found
    parts = {place.rpartition("/")[2] for place in crossing.places}
    assert {"batches", "heartbeats", "receipts", "summaries", "repairs"} <= parts, "every kind of call was made"
    assert {place for place in crossing.places if "/traces/" in place}
    for stream in StreamName:
        assert [place for place in crossing.places if f"/streams/{stream}/batches" in place], stream

    held = Crossing(
        {name: text.encode() if isinstance(text, str) else text for name, text in secrets_of(world).items()}
    )
    held.look("held", await everything_held(world))
    assert not held.found

    shown = Crossing(held.forbidden)
    async with world.networks.response.engine.connect() as connection:
        for stream in PREVIEWED:
            shown.look(f"preview of {stream}", await preview(connection, stream))
    assert not shown.found
    assert shown.seen > 1000


async def test_what_is_public_is_found_by_the_same_looking(
    planted: World, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: a public setting crosses in zstd, a parameter too, a hash of a key in force as hex."""
    known = hashlib.sha256(canaries.USER_KEY.encode()).digest()
    public: dict[str, str | bytes] = {"setting": canaries.PUBLIC_SETTING, "param": canaries.PUBLIC_PARAM, "hash": known}
    with Crossing().forbidding(**public) as crossing:
        await live(planted, service, monkeypatch)
    where = {what: {item.where for item in crossing.found if item.what == what} for what in public}
    assert where["setting"] == {"sent: POST /link/v1/streams/settings/batches"}
    assert where["hash"] == where["setting"]
    assert where["param"] == {f"came: GET /link/v1/streams/{REQUESTS}/batches"}


@pytest.mark.parametrize(
    "secret", [canaries.SECRET_SETTING.encode(), canaries.PUBLIC_SETTING.encode(), bytes(range(7, 39))]
)
def test_the_looking_finds_a_secret_in_every_form(secret: bytes) -> None:
    text = as_text(secret)
    forms = {
        "plain": secret,
        "JSON": json.dumps(text).encode(),
        "all escaped": "".join(f"\\u{ord(item):04X}" for item in text).encode(),
        "hex": secret.hex().upper().encode(),
        "percent": "".join(f"%{byte:02X}" for byte in secret).encode(),
        **{f"base64 after {before}": base64.b64encode(b"x" * before + secret + b"yz") for before in range(6)},
        **{f"base64url after {before}": base64.urlsafe_b64encode(b"x" * before + secret) for before in range(6)},
    }
    for name, form in forms.items():
        for content in (b"before " + form + b" after", b"manifest\n" + zstandard.compress(b"x" * 999 + form)):
            crossing = Crossing({"it": secret})
            crossing.look(name, content)
            assert {item.what for item in crossing.found} == {"it"}, name
            crossing = Crossing({"it": secret[::-1]})
            crossing.look(name, content)
            assert not crossing.found, name
    assert len(list(readings(zstandard.compress(b"a")))) == 2
    assert secret in spellings(secret)
