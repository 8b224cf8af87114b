"""Who was refused and what operators did is in the log, without a key, and no flood fills the disk with it."""

import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api import audit_log
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.keys import load_link_keys
from people.users import put_api_key, put_user
from tests.activities.crossing import LINK, new_id
from tests.conftest import Networks
from tests.security.processes import ApiProcess, api_process

OPERATOR, USER = "alk_operator-of-the-audit", "alk_user-of-the-audit"


def lines(api: ApiProcess, event: str) -> list[dict[str, object]]:
    found = [json.loads(line) for line in api.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line["event"] == event]


def fingerprint(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:8]


@pytest.fixture
async def response(networks: Networks, tmp_path: Path) -> AsyncIterator[ApiProcess]:
    side = networks.response
    async with side.engine.begin() as connection:
        for name, role, key in (("olga", "operator", OPERATOR), ("ulf", "user", USER)):
            await put_api_key(connection, await put_user(connection, new_id(), name, role), key, "test")
    async with api_process(
        "response", tmp_path, "INFO", database_url=side.url, keys=str(side.keys_directory), link_id=LINK
    ) as process:
        yield process


def client(api: ApiProcess, key: str = "") -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=api.url, headers=headers, trust_env=False, timeout=30)


async def test_what_an_operator_changes_is_logged_with_its_outcome_and_without_its_content(
    response: ApiProcess,
) -> None:
    async with client(response, OPERATOR) as http:
        setting = {"name": "token", "value": "the-secret-of-it", "visibility": "secret"}
        made = [await http.post("/v1/settings", json=setting) for _ in range(2)]
        await http.delete("/v1/settings/nothing")
        await http.put("/v1/settings/token", content=b"{")
        assert (await http.get("/v1/settings")).status_code == 200
    acted = lines(response, "audit.action")
    assert [(line["method"], line["path"], line["status"]) for line in acted] == [
        ("POST", "/v1/settings", made[0].status_code),
        ("POST", "/v1/settings", made[1].status_code),
        ("DELETE", "/v1/settings/nothing", 404),
        ("PUT", "/v1/settings/token", 422),
    ]
    assert {(line["user"], line["key"], line["address"]) for line in acted} == {
        ("olga", fingerprint(OPERATOR), "127.0.0.1")
    }
    assert not [word for word in (OPERATOR, "the-secret-of-it") if word in response.log.read_text()]


async def test_a_refused_call_is_logged_with_the_caller_and_without_the_key(response: ApiProcess) -> None:
    async with client(response) as http:
        await http.get("/v1/settings?secret=in-the-query")
        await http.get("/v1/settings", headers={"Authorization": "Bearer alk_nobodys"})
        await http.post("/v1/settings", headers={"Authorization": f"Bearer {USER}"}, json={})
    none, unknown, user = lines(response, "audit.refused")
    assert (none["status"], none["path"], none["method"]) == (401, "/v1/settings", "GET")
    assert "key" not in none
    assert (unknown["status"], unknown["key"]) == (401, fingerprint("alk_nobodys"))
    assert (user["status"], user["user"], user["key"]) == (403, "ulf", fingerprint(USER))
    text = response.log.read_text()
    assert not [word for word in (USER, "alk_nobodys", "in-the-query") if word in text]


async def test_a_flood_of_refused_calls_is_a_few_lines(response: ApiProcess) -> None:
    async with client(response) as http:
        for _ in range(10):
            await http.get("/v1/settings")
        assert len(lines(response, "audit.refused")) == 1
        for number in range(3 * audit_log.LINES):
            await http.get("/v1/settings", headers={"Authorization": f"Bearer {number}"})
    assert 0 < len(lines(response, "audit.refused")) <= 2 * audit_log.LINES


async def test_a_refused_signature_is_logged_with_the_key_that_it_names(networks: Networks, tmp_path: Path) -> None:
    side = networks.request
    strange = load_link_keys(side.keys_directory)
    async with api_process(
        "request", tmp_path, "INFO", database_url=side.url, keys=str(side.keys_directory), link_id=LINK
    ) as process:
        async with client(process) as http:
            target = "/link/v1/streams/results"
            signature = HttpSigner(strange, LINK).sign_request("GET", target, b"")
            assert (await http.get(target, headers={HEADER: signature})).status_code == 403
            assert (await http.get("/v1/me", headers={HEADER: "x"})).status_code in (401, 404)
            assert (await http.get("/v1/requests")).status_code == 401
        refused = lines(process, "audit.refused")
    assert (refused[0]["status"], refused[0]["link_key"], refused[0]["reason"]) == (403, strange.key_id, "unknown-key")
    assert refused[-1]["path"] == "/v1/requests"
