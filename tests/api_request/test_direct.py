"""Direct routes read what the OpenAPI document describes, refuse the rest by name, and are counted as any other."""

from uuid import uuid4

import httpx
import pytest

from tests.api_request.conftest import Api
from tests.api_request.serving import IST, answer


@pytest.mark.parametrize(
    ("path", "headers", "fields"),
    [
        ("?wait=x", {}, ["wait"]),
        ("?wait=", {}, ["wait"]),
        ("?wait=0&wait=61", {}, ["wait"]),
        ("?wait=61", {"If-None-Match": "x" * 8001}, ["wait", "if-none-match"]),
        ("", {"If-None-Match": "x" * 8001}, ["if-none-match"]),
    ],
)
async def test_each_parameter_that_does_not_fit_is_named(
    http: httpx.AsyncClient, path: str, headers: dict[str, str], fields: list[str]
) -> None:
    refused = await http.get(f"/v1/requests/{uuid4()}/result{path}", headers=headers)
    assert (refused.status_code, refused.json()["type"]) == (422, "urn:airlock:problem:invalid-input")
    assert [item["field"] for item in refused.json()["errors"]] == fields


@pytest.mark.parametrize("key", ["", "x" * 256, "with a space"])
async def test_an_idempotency_key_that_does_not_fit_is_named(http: httpx.AsyncClient, key: str) -> None:
    refused = await http.post("/v1/requests", json=IST, headers={"Idempotency-Key": key})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "idempotency-key")


async def test_an_id_is_read_in_every_spelling_and_what_is_none_is_refused(http: httpx.AsyncClient, api: Api) -> None:
    request_id = (await http.post("/v1/requests", json=IST)).json()["id"]
    await answer(api.networks, request_id)
    for spelling in (request_id, request_id.upper(), request_id.replace("-", "")):
        assert (await http.get(f"/v1/requests/{spelling}/result")).json()["request_id"] == request_id
    refused = await http.get("/v1/requests/none/result")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "request_id")


async def test_who_has_no_key_is_told_so_before_anything_else(api: Api) -> None:
    async with httpx.AsyncClient(base_url=api.url, trust_env=False) as stranger:
        for key in ({}, {"Authorization": "Bearer alk_unknown"}, {"Authorization": "Basic eDp5"}):
            for method, path in ("GET", "/v1/requests/none/result?wait=x"), ("POST", "/v1/requests"):
                refused = await stranger.request(method, path, headers=key, content="{")
                assert refused.status_code == 401
                assert refused.headers["www-authenticate"] == 'Bearer realm="airlock"'


async def test_calls_are_counted_under_the_route(http: httpx.AsyncClient, api: Api) -> None:
    request_id = (await http.post("/v1/requests", json=IST)).json()["id"]
    await http.get(f"/v1/requests/{request_id}/result")
    async with api.operator.calls(api.url) as operator:
        metrics = (await operator.get("/metrics")).text
    assert 'method="GET",route="/v1/requests/{request_id}/result",status="202"' in metrics
    assert 'method="POST",route="/v1/requests",status="202"' in metrics
