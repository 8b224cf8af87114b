"""Parameters that try to be SQL, from POST /v1/requests over the link into the bound parameters of a real query.

The types' own schemas would refuse most of them long before: here the schemas let everything through. Queries that try
to write: tests/execution/test_sql.py.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from pydantic import SecretStr
from uuid_utils.compat import uuid7

from activities.executing import ExecutionActivities
from cache.redis_cache import Cache
from exchange.transfer.sealing import Sealer
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from sample.request_types import REQUEST_TYPES
from tests.activities.crossing import LINK
from tests.api_request.serving import User, eventually, publish, request_type
from tests.execution.conftest import Source, source
from tests.verification.conftest import served, verification_networks, world
from tests.verification.world import World

__all__ = ["served", "source", "verification_networks", "world"]

HOSTILE: list[Any] = [
    "'; DROP TABLE data.items; --",
    "' OR '1'='1",
    "' UNION SELECT usename, passwd FROM pg_shadow --",
    "1); DELETE FROM data.items; --",
    "$1",
    ":name",
    ":iata",
    "%s %(name)s {name} {0}",
    "\\'; SELECT pg_sleep(60); --",
    "$$; DROP SCHEMA data CASCADE; $$",
    "'||(SELECT string_agg(name, ',') FROM data.items)||'",
    "/* */ -- \n ;",
    "＇; DROP TABLE data.items; --",  # noqa: RUF001, a full-width quote is the point
    "\u02bc OR 1=1",
    "a\ufeff\u200b\u202e",
    "item 1",
    ["'; DROP TABLE data.items; --", "x"],
    {"$ne": None},
    {"a": "'; DROP TABLE data.items; --"},
    "1; SELECT 1",
    "{1,2}",
    "NULL",
    "NaN",
    True,
    -1,
    2**62,
    1e300,
    None,
]
OWN = {
    "by-text": "SELECT id, name FROM data.items WHERE name = :name",
    "by-number": "SELECT id, name FROM data.items WHERE id = CAST(:name AS integer)",
    "by-list": "SELECT id, name FROM data.items WHERE name = ANY (CAST(:name AS text[]))",
    "echoed": "SELECT CAST(:name AS text) AS echoed, (SELECT count(*) FROM data.items) AS items",
}
ASKER = User(uuid7(), "alk_asker")


@dataclass(frozen=True)
class Asking:
    """Both networks, with the sample's queries and a few of our own behind types that take anything."""

    world: World
    source: Source

    async def answers(self, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The results of these requests, which go all the way."""
        async with ASKER.calls(self.world.url) as http:

            async def is_known() -> bool:
                return (await http.get("/v1/request-types")).status_code == 200

            await eventually(is_known, "the caller's key is known")
            accepted = await http.post("/v1/requests", json=requests)
            assert accepted.status_code == 202, accepted.text
            await self.world.carry_on()
            return [(await http.get(f"/v1/requests/{item}/result")).json() for item in accepted.json()["ids"]]

    async def state(self) -> tuple[object, ...]:
        """What must be the same afterwards."""
        return (
            await self.source.run("SELECT md5(string_agg(i::text, '|' ORDER BY id)) FROM data.items AS i"),
            await self.source.run("SELECT count(*) FROM sample.airports"),
            await self.source.run("SELECT last_value FROM data.counter"),
            await self.source.run("SELECT count(*) FROM pg_class"),
        )


@pytest.fixture
async def asking(world: World, source: Source) -> AsyncIterator[Asking]:
    response = world.networks.response
    cache = Cache(world.networks.servers.redis_url)
    # The owner's address: nothing but the executor keeps a query from writing.
    sources = SqlSources({"sample": SecretStr(source.owner_url)}, 3)
    executors = Executors(sources, HttpCalls([]), PythonFunctions([]), cache)
    queries = {kind["name"]: kind["query"] for kind in REQUEST_TYPES} | OWN
    async with response.engine.begin() as connection:
        for name, query in queries.items():
            executor = {"kind": "sql", "source": "sample", "query": query}
            await put_request_type(connection, name, "", {"type": "object"}, {"timeout": 20}, executor, "test")
    await publish(world.networks, [ASKER.record(), *(request_type(name) for name in queries)])

    executing = ExecutionActivities(response.engine, Sealer(response.keys, LINK), executors, 4)
    yield Asking(replace(world, executing=executing), source)
    await executors.aclose()
    await cache.aclose()


async def test_a_parameter_is_never_more_than_a_value(asking: Asking) -> None:
    before = await asking.state()
    sound = {"latitude": 46.2, "longitude": 6.15, "radius_km": 1.0, "iata": "IST", "country": "IS", "limit": 1}
    named = {
        kind["name"]: [name for name in kind["params_schema"]["properties"] if name != "limit"]
        for kind in REQUEST_TYPES
    }
    assert sorted(name for names in named.values() for name in names) == [
        "country",
        "iata",
        "latitude",
        "longitude",
        "radius_km",
    ]
    requests = [
        {"type": kind, "params": sound | {name: hostile}}
        for kind, names in named.items()
        for name in names
        for hostile in HOSTILE
    ]
    results = await asking.answers(requests)
    for request, result in zip(requests, results, strict=True):
        if result["status"] == "completed":
            changed = [value for name, value in request["params"].items() if sound[name] != value]
            assert result["total"] <= 40 or isinstance(changed[0], int | float), request
        else:
            assert result["error"]["reason"] == "invalid-params", (request, result)
    assert {result["status"] for result in results} == {"completed", "failed"}
    assert await asking.state() == before


async def test_text_numbers_and_lists_come_out_as_they_went_in_or_not_at_all(asking: Asking) -> None:
    before = await asking.state()
    requests: list[dict[str, Any]] = [
        {"type": name, "params": {"name": hostile}} for name in OWN for hostile in HOSTILE
    ]
    results = await asking.answers(requests)
    found: dict[str, set[str]] = {name: set() for name in OWN}
    for request, result in zip(requests, results, strict=True):
        name, hostile = request["type"], request["params"]["name"]
        if result["status"] == "failed":
            assert result["error"]["reason"] == "invalid-params", (request, result)
        elif name == "echoed" and isinstance(hostile, str):
            assert result["data"] == [{"echoed": hostile, "items": 20}]
            found[name].add(hostile)
        elif name == "by-text":
            assert [row["name"] for row in result["data"]] == ([hostile] if hostile == "item 1" else []), request
            found[name].add(str(hostile))
        elif name in ("by-number", "by-list") and hostile is not True:  # which is 1
            assert result["returned"] == 0, request
    assert "item 1" in found["by-text"], "it does find what is there"
    assert len(found["echoed"]) == len([item for item in HOSTILE if isinstance(item, str)])
    assert await asking.state() == before


@pytest.mark.parametrize("name", ["name; DROP TABLE data.items", "name'", "1", "", "__class__", "%(name)s"])
async def test_a_parameters_name_is_never_more_than_a_name(asking: Asking, name: str) -> None:
    before = await asking.state()
    results = await asking.answers([{"type": "by-text", "params": {name: "x", "name": "item 2"}}])
    assert [row["name"] for row in results[0]["data"]] == ["item 2"]
    assert await asking.state() == before
