"""Submitting: what is accepted, and what is refused with the name of the field before anything is stored."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from storage.database import rows
from tests.api_request.conftest import Api
from tests.api_request.serving import IST, User

JSON = {"Content-Type": "application/json"}


async def stored(api: Api, user: User) -> list[Any]:
    async with api.networks.request.engine.connect() as connection:
        return list(
            await rows(
                connection,
                "SELECT request_id, params FROM requests WHERE user_id = :user_id ORDER BY request_id",
                user_id=user.user_id,
            )
        )


async def test_one_request_is_accepted_with_its_id_and_place(http: httpx.AsyncClient, api: Api, user: User) -> None:
    answer = await http.post("/v1/requests", json=IST | {"name": "Atatürk", "priority": 9, "deadline": 60})
    assert answer.status_code == 202
    accepted = answer.json()
    assert accepted["ids"] == [accepted["id"]]
    assert UUID(accepted["id"]).version == 7
    assert answer.headers["location"] == f"/v1/requests/{accepted['id']}"
    assert [tuple(item) for item in await stored(api, user)] == [(UUID(accepted["id"]), b'{"iata":"IST"}')]
    view = (await http.get(answer.headers["location"])).json()
    assert (view["status"], view["type"], view["name"], view["priority"]) == ("queued", "airport", "Atatürk", 9)
    assert view["params"] == {"iata": "IST"}
    assert view["deadline_at"] > view["submitted_at"]


async def test_a_list_is_accepted_in_its_order(http: httpx.AsyncClient, api: Api, user: User) -> None:
    numbers = [{"type": "anything", "params": {"n": n}} for n in range(1000)]
    answer = await http.post("/v1/requests", json=numbers)
    assert answer.status_code == 202
    assert answer.json()["id"] is None
    assert answer.headers["location"] == "/v1/requests"
    assert [(str(request_id), params) for request_id, params in await stored(api, user)] == [
        (given, b'{"n":%d}' % n) for n, given in enumerate(answer.json()["ids"])
    ]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "nothing"}, "type"),
        ({"type": "Not A Name"}, "type"),
        ({"type": "x" * 65}, "type"),
        ({"type": "air\x00port"}, "type"),
        ({"type": 5}, "type"),
        ({"params": {"iata": "IST"}}, "type"),
        ({"type": "airport"}, "params.iata"),
        ({"type": "airport", "params": {"iata": "ist"}}, "params.iata"),
        ({"type": "airport", "params": {"iata": 5}}, "params.iata"),
        ({"type": "airport", "params": {"iata": None}}, "params.iata"),
        ({"type": "airport", "params": {"iata": "IST\x00"}}, "params.iata"),
        ({"type": "airport", "params": {"iata": "IST", "icao": "LTFM"}}, "params.icao"),
        ({"type": "airport", "params": ["IST"]}, "params"),
        ({"type": "airport", "params": None}, "params"),
        (IST | {"colour": "blue"}, "colour"),
        (IST | {"user_id": "01900000-0000-7000-8000-000000000000"}, "user_id"),
        (IST | {"priority": 0}, "priority"),
        (IST | {"priority": 11}, "priority"),
        (IST | {"priority": 2.5}, "priority"),
        (IST | {"priority": 10**30}, "priority"),
        (IST | {"deadline": 0}, "deadline"),
        (IST | {"deadline": -1}, "deadline"),
        (IST | {"deadline": 1e300}, "deadline"),
        (IST | {"deadline": float("nan")}, "deadline"),
        (IST | {"name": "x" * 201}, "name"),
        (IST | {"name": "a\x00b"}, "name"),
        (IST | {"callback_url": "javascript:alert(1)"}, "callback_url"),
        (IST | {"callback_url": "http://a\x00b/"}, "callback_url"),
        (IST | {"callback_url": "http://host/" + "x" * 3000}, "callback_url"),
        ({"type": "anything", "params": {"n": float("nan")}}, "params.n"),
        ({"type": "anything", "params": {"deep": [1, {"n": float("-inf")}]}}, "params.deep.1.n"),
        ({"type": "anything", "params": {"n": 10**30}}, "params.n"),
        ({"type": "anything", "params": {"n": -(10**19)}}, "params.n"),
        ([], "body"),
        ([IST] * 1001, "body"),
        ("IST", "body"),
        (None, "body"),
        (5, "body"),
        ([IST, {"type": "nothing"}], "1.type"),
        ([IST, {"type": "airport", "params": {"iata": "x"}}], "1.params.iata"),
        ([IST, {"type": "anything", "params": {"n": float("inf")}}], "1.params.n"),
        ([IST, {"type": "anything", "params": {"n": 2**64}}], "1.params.n"),
        ([IST, 5], "1"),
        ([IST, IST | {"name": "\x00"}], "1.name"),
    ],
)
async def test_what_does_not_fit_is_refused_by_the_name_of_its_field_and_nothing_is_stored(
    http: httpx.AsyncClient, api: Api, user: User, body: Any, field: str
) -> None:
    answer = await http.post("/v1/requests", content=json.dumps(body), headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["type"] == "urn:airlock:problem:invalid-input"
    assert field in [error["field"] for error in problem["errors"]]
    assert all(error["message"] for error in problem["errors"])
    assert await stored(api, user) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{]",
        b'{"type": "airport", "params": {"iata": "IST"}} and more',
        b'{"type": "anything", "params": {"s": "\\ud800"}}',
        b'{"type": "anything", "params": {"s": "\xed\xa0\x80"}}',
        b'{"type": "anything", "params": {"s": "\xff"}}',
        b'{"type": "anything", "params": {"a\x01": 1}}',
        b'{"type": "anything", "params": ' + b'{"x":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b'{"type": "anything", "params": {"n": ' + b"9" * 5000 + b"}}",
        b"[" * 10_000,
        '{"type": "airport"}'.encode("utf-16"),
        b"\x28\xb5\x2f\xfd",
    ],
    ids=[
        "empty", "cut off", "not JSON", "more than one", "lone surrogate", "encoded surrogate", "not UTF-8",
        "control character", "deep", "5000 digits", "open lists", "UTF-16", "compressed",
    ],
)  # fmt: skip
async def test_a_body_that_is_no_json_is_refused(http: httpx.AsyncClient, api: Api, user: User, body: bytes) -> None:
    answer = await http.post("/v1/requests", content=body, headers=JSON)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"][0]["field"] in ("body", "0")
    assert await stored(api, user) == []


@pytest.mark.parametrize("media_type", ["multipart/form-data", "text/plain", "application/xml", "a"])
async def test_a_body_that_says_it_is_something_else_is_refused(
    http: httpx.AsyncClient, api: Api, user: User, media_type: str
) -> None:
    answer = await http.post("/v1/requests", content=json.dumps(IST), headers={"Content-Type": media_type})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "Content-Type"
    assert await stored(api, user) == []


@pytest.mark.parametrize(
    "media_type",
    ["application/json", "Application/JSON; charset=utf-8", "application/a+json", "application/x-www-form-urlencoded"],
)
async def test_every_way_to_say_json_is_accepted(http: httpx.AsyncClient, media_type: str) -> None:
    answer = await http.post("/v1/requests", content=json.dumps(IST), headers={"Content-Type": media_type})
    assert answer.status_code == 202
    assert (await http.post("/v1/requests", content=json.dumps(IST))).status_code == 202


@pytest.mark.parametrize(
    "params",
    [
        {"s": "\x00 \u2028 \U0001f6eb \u0000"},
        {"n": 2**64 - 1, "m": -(2**63), "f": 1e308, "z": -0.0, "tiny": 5e-324},
        {"": {"": [[[[[]]]]]}, "a.b": {"~/": None}},
    ],
    ids=["text", "numbers", "names"],
)
async def test_params_come_back_as_they_were_given(http: httpx.AsyncClient, params: dict[str, Any]) -> None:
    accepted = (await http.post("/v1/requests", json={"type": "anything", "params": params})).json()
    assert (await http.get(f"/v1/requests/{accepted['id']}")).json()["params"] == params


async def test_a_body_above_its_bound_is_refused_whether_it_says_its_size_or_not(
    http: httpx.AsyncClient, api: Api, user: User
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"type": "anything", "params": {"s": "'
        for _ in range(15):
            yield b"x" * 100_000

    for content in (json.dumps({"type": "anything", "params": {"s": "x" * 10_000_000}}).encode(), chunks()):
        answer = await http.post("/v1/requests", content=content, headers=JSON)
        assert answer.status_code == 413
        assert answer.json()["type"] == "urn:airlock:problem:too-large"
        assert answer.json()["max_bytes"] == 1024 * 1024
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert await stored(api, user) == []
    assert (await http.post("/v1/requests", json=IST)).status_code == 202


async def test_a_refusal_says_no_more_than_a_few_lines_however_large_the_input(http: httpx.AsyncClient) -> None:
    text = "x" * 300_000
    for body in (
        {"type": "airport", "params": {"iata": text}},
        {"type": "airport", "params": {text: 1, "iata": "IST"}},
        IST | {text: 1},
        [{"type": "airport", "params": {"iata": "x" * 500}}] * 1000,
    ):
        answer = await http.post("/v1/requests", json=body)
        assert answer.status_code == 422
        assert len(answer.content) < 20_000
