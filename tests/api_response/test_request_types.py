"""Request types through the API: what is wrong is said when it is written."""

import asyncio
from typing import Any

import pytest

from tests.api_response.conftest import Api

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "limit": {"type": "integer"}},
    "required": ["name"],
}
GOOD: dict[str, Any] = {
    "description": "Settings by name",
    "params_schema": SCHEMA,
    "limits": {"rows": 5, "rows_param": "limit"},
    "executor": {"kind": "sql", "source": "own", "query": "SELECT * FROM settings WHERE name = :name;"},
}


def sql(query: str, source: str = "own") -> dict[str, Any]:
    return GOOD | {"executor": {"kind": "sql", "source": source, "query": query}}


async def test_a_request_type_from_creation_to_retirement_and_back(api: Api) -> None:
    created = await api.http.post("/v1/request-types", json={"name": "setting", **GOOD})
    assert created.status_code == 201, created.text
    assert (created.json()["version"], created.json()["warnings"]) == (1, [])
    assert (await api.http.post("/v1/request-types", json={"name": "setting", **GOOD})).status_code == 409
    again = await api.http.put("/v1/request-types/setting", json=GOOD)
    assert again.json()["version"] == 1
    changed = await api.http.put("/v1/request-types/setting", json=GOOD | {"description": "other"})
    assert changed.json()["version"] == 2
    assert (await api.http.delete("/v1/request-types/setting")).status_code == 204
    assert (await api.http.delete("/v1/request-types/setting")).status_code == 404
    assert (await api.http.get("/v1/request-types/setting")).json()["retired_at"] is not None
    assert b"setting" not in (await api.http.get("/v1/streams/settings/preview")).content.replace(b'"settings"', b"")
    refused = await api.http.post("/v1/request-types", json={"name": "setting", **GOOD})
    assert "restore it with PUT" in refused.json()["detail"]
    back = await api.http.put("/v1/request-types/setting", json=GOOD)
    assert (back.status_code, back.json()["retired_at"]) == (200, None)
    assert (await api.http.put("/v1/request-types/other", json=GOOD)).status_code == 404


async def test_of_two_that_create_the_same_one_is_refused(api: Api) -> None:
    answers = await asyncio.gather(
        *(api.http.post("/v1/request-types", json={"name": "setting", **GOOD}) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]


async def test_an_executor_is_shown_to_operators_and_never_crosses(api: Api) -> None:
    await api.http.post("/v1/request-types", json={"name": "setting", **GOOD})
    shown = (await api.http.get("/v1/request-types")).json()["request_types"][0]
    assert shown["executor"] == GOOD["executor"]
    crossing = (await api.http.get("/v1/streams/settings/preview")).text
    assert '"name":"setting"' in crossing
    assert "SELECT" not in crossing
    assert "own" not in crossing


@pytest.mark.parametrize(
    ("wanted", "field", "said"),
    [
        (GOOD | {"params_schema": {"type": 7}}, "params_schema", "usable JSON Schema"),
        (GOOD | {"params_schema": {"type": "array"}}, "params_schema", "object"),
        (GOOD | {"limits": {"rows_param": "much"}}, "limits.rows_param", "no property 'much'"),
        (GOOD | {"limits": {"rows": 0}}, "limits.rows", "greater than"),
        (sql("SELECT 1", "nowhere"), "executor.source", "which has away, own"),
        (sql("SELECT * FROM setings"), "executor.query", 'relation "setings" does not exist'),
        (sql("SELEC 1"), "executor.query", "syntax error"),
        (sql("SELECT * FROM settings WHERE name = :nmae"), "executor.query", ":nmae"),
        (GOOD | {"executor": {"kind": "http", "url": "http://other.example/_search"}}, "executor.url", "other.example"),
        (GOOD | {"executor": {"kind": "http", "url": "http://[x/_search"}}, "executor.url", "URL"),
        (GOOD | {"executor": {"kind": "python", "function": "os:system"}}, "executor.function", "which has reports"),
        (GOOD | {"params_schema": SCHEMA | {"title": "\0"}}, "params_schema", "NUL"),
    ],
)
async def test_a_mistake_names_its_field(api: Api, wanted: dict[str, Any], field: str, said: str) -> None:
    answer = await api.http.post("/v1/request-types", json={"name": "setting", **wanted})
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] == field
    assert said in answer.json()["detail"]
    assert (await api.http.get("/v1/request-types")).json() == {"request_types": []}


@pytest.mark.parametrize(
    "query",
    [
        "SELECT :name AS name",
        "SELECT name, value::text FROM settings WHERE name ILIKE '%' || :name || '%' ORDER BY name",
        "SELECT * FROM settings WHERE (CAST(:name AS text) IS NULL OR name = :name) -- all or one",
    ],
)
async def test_a_query_that_can_run_is_taken(api: Api, query: str) -> None:
    answer = await api.http.post("/v1/request-types", json={"name": "setting", **sql(query)})
    assert (answer.status_code, answer.json().get("warnings")) == (201, []), answer.text


async def test_a_source_that_is_away_gives_a_warning_without_its_address(api: Api) -> None:
    answer = await api.http.post("/v1/request-types", json={"name": "setting", **sql("SELEC 1", "away")})
    assert answer.status_code == 201
    assert "the query was not checked" in answer.json()["warnings"][0]
    assert "127.0.0.1" not in answer.text


async def test_a_missing_secret_gives_a_warning_until_it_is_there(api: Api) -> None:
    executor = {
        "kind": "http",
        "url": "http://search.example:9200/_search",
        "secret_headers": {"Authorization": "search.key"},
    }
    wanted = GOOD | {"executor": executor}
    created = await api.http.post("/v1/request-types", json={"name": "search", **wanted})
    assert "'search.key'" in created.json()["warnings"][0]
    await api.http.put("/v1/settings/search.key", json={"value": "x", "visibility": "secret"})
    assert (await api.http.put("/v1/request-types/search", json=wanted)).json()["warnings"] == []
