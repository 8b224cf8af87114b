"""Settings through the API."""

from typing import Any

import pytest

from settings.setting_store import secret_settings
from tests.api_response.conftest import Api

SECRET = "correct horse battery staple"


async def test_a_setting_from_creation_to_deletion(api: Api) -> None:
    new = {"name": "banner.text", "value": {"en": "Hello"}, "visibility": "public"}
    created = await api.http.post("/v1/settings", json=new)
    assert created.status_code == 201
    assert (created.json()["version"], created.json()["updated_by"]) == (1, "olga")
    assert (await api.http.post("/v1/settings", json=new)).status_code == 409
    changed = await api.http.put("/v1/settings/banner.text", json={"value": None})
    assert (changed.json()["version"], changed.json()["visibility"], changed.json()["value"]) == (2, "public", None)
    listed = (await api.http.get("/v1/settings")).json()["settings"]
    assert [setting["name"] for setting in listed] == ["banner.text"]
    assert (await api.http.delete("/v1/settings/banner.text")).status_code == 204
    for method in ("GET", "DELETE"):
        assert (await api.http.request(method, "/v1/settings/banner.text")).status_code == 404


async def test_a_secret_is_written_and_never_read_and_never_crosses(api: Api) -> None:
    answers = [
        await api.http.put("/v1/settings/api.password", json={"value": SECRET, "visibility": "secret"}),
        await api.http.get("/v1/settings/api.password"),
        await api.http.get("/v1/settings"),
        await api.http.get("/v1/streams/settings/preview"),
    ]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert not [answer.text for answer in answers if SECRET in answer.text]
    assert (answers[1].json()["value"], answers[1].json()["visibility"]) == (None, "secret")
    async with api.networks.response.engine.connect() as connection:
        assert await secret_settings(connection) == {"api.password": SECRET}


async def test_a_secret_never_becomes_public_by_omission(api: Api) -> None:
    refused = await api.http.put("/v1/settings/api.password", json={"value": SECRET})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["field"] == "visibility"
    await api.http.put("/v1/settings/api.password", json={"value": SECRET, "visibility": "secret"})
    kept = await api.http.put("/v1/settings/api.password", json={"value": SECRET + "!"})
    assert (kept.json()["visibility"], kept.json()["version"]) == ("secret", 2)
    assert (await api.http.post("/v1/settings", json={"name": "x", "value": 1})).status_code == 422


async def test_a_change_shows_in_the_preview_at_once(api: Api) -> None:
    await api.http.put("/v1/settings/banner", json={"value": "before", "visibility": "public"})
    before = (await api.http.get("/v1/streams/settings/preview")).content
    await api.http.put("/v1/settings/banner", json={"value": "after"})
    after = (await api.http.get("/v1/streams/settings/preview")).content
    assert b'"value":"before","version":1' in before
    assert b'"value":"after","version":2' in after


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"value": "a\\u0000b", "visibility": "public"}', 422),
        (b'{"value": "\\ud800", "visibility": "public"}', 422),
        (b'{"value": NaN, "visibility": "public"}', 422),
        (b'{"value": 1, "visibility": "open"}', 422),
        (b'{"value": 1, "visibility": "public", "more": 1}', 422),
        (b'{"visibility": "public"}', 422),
        (b'{"value": "' + b"x" * 70_000 + b'", "visibility": "public"}', 413),
        (b"[" * 100_000, 422),
    ],
)
async def test_what_cannot_be_stored_is_the_callers_to_mend(api: Api, body: bytes, status: int) -> None:
    answer = await api.http.put("/v1/settings/odd", content=body, headers={"content-type": "application/json"})
    assert answer.status_code in (status, 400)
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.http.get("/v1/settings")).json() == {"settings": []}


@pytest.mark.parametrize("name", ["Upper", "a b", "1a", "x" * 101])
async def test_a_name_has_a_form(api: Api, name: str) -> None:
    body: dict[str, Any] = {"value": 1, "visibility": "public"}
    assert (await api.http.put(f"/v1/settings/{name}", json=body)).status_code == 422
    assert (await api.http.post("/v1/settings", json=body | {"name": name})).status_code == 422
