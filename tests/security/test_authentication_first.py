"""A stranger learns nothing but that a key or a signature is needed, whatever the rest of the call holds."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.keys import load_link_keys
from tests.conftest import Networks
from tests.security.conftest import LINK, Airlock
from tests.security.documents import OPERATIONS, Operation

OPEN = {"/healthz", "/readyz"}
GUARDED = [item for item in OPERATIONS if item.template not in OPEN]

BODIES = {
    "none": b"",
    "no JSON": b"{",
    "another type": b"[1, 2",
    "deep": b"[" * 20_000,
    "no UTF-8": b'"\xff"',
    "invalid": b'{"name": 5}',
}
QUERIES = ("", "?wait=x&after=-1&limit=none&most=1e9&stream=nowhere&epoch=0&head=z", "?a=%ff%00&after=1&after=2")
NAMES = ("request_id", "stream", "name", "id", "epoch", "record", "sequence")
FILLINGS: tuple[dict[str, str], ...] = ({}, dict.fromkeys(NAMES, "no such thing"), dict.fromkeys(NAMES, "9" * 40))


@pytest.fixture
async def http(airlock: Airlock) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    # No connection is used twice: the API ends one whose body it did not read.
    options: dict[str, Any] = {"trust_env": False, "timeout": 30, "limits": httpx.Limits(max_keepalive_connections=0)}
    async with (
        httpx.AsyncClient(base_url=airlock.request.url, **options) as request,
        httpx.AsyncClient(base_url=airlock.response.url, **options) as response,
    ):
        yield {"request": request, "response": response}


@pytest.mark.parametrize("operation", GUARDED, ids=str)
async def test_a_stranger_is_refused_before_anything_else_is_looked_at(
    http: dict[str, httpx.AsyncClient], operation: Operation
) -> None:
    client = http[operation.network]
    credentials: tuple[dict[str, str], ...] = ({}, {"Authorization": "Bearer alk_wrong", HEADER: "x"})
    for filled in FILLINGS:
        for query in QUERIES:
            for name, body in BODIES.items():
                for headers in credentials:
                    answer = await client.request(
                        operation.method,
                        operation.path(**filled) + query,
                        content=body,
                        headers=headers | {"Content-Type": "application/json"},
                    )
                    assert answer.status_code == 401, (filled, query, name, answer.text)


@pytest.mark.parametrize("operation", [item for item in GUARDED if item.network == "response"], ids=str)
async def test_a_user_is_refused_by_the_operators_api_before_anything_else(
    airlock: Airlock, http: dict[str, httpx.AsyncClient], operation: Operation
) -> None:
    headers = {"Authorization": f"Bearer {next(airlock.users).key}", "Content-Type": "application/json"}
    for filled in FILLINGS:
        for body in BODIES.values():
            answer = await http["response"].request(
                operation.method, operation.path(**filled) + QUERIES[1], content=body, headers=headers
            )
            assert answer.status_code == 403, answer.text


LINKS = [item for item in GUARDED if item.template.startswith("/link/")]


@pytest.mark.parametrize("operation", LINKS, ids=str)
async def test_a_refused_signature_names_no_key_that_is_trusted(
    airlock: Airlock, http: dict[str, httpx.AsyncClient], operation: Operation, key_root: object
) -> None:
    strange = load_link_keys(key_root / "response")  # type: ignore[operator]
    networks: Networks = airlock.networks
    ours = {networks.request.keys.key_id, networks.response.keys.key_id}
    ours |= set(networks.request.keys.trusted) | set(networks.response.keys.trusted)
    target = operation.path()
    for signer in (HttpSigner(strange, LINK), HttpSigner(networks.request.keys, LINK)):
        signature = signer.sign_request(operation.method, target, b"")
        answer = await http["request"].request(operation.method, target, headers={HEADER: signature})
        assert answer.status_code == 403
        assert not [key for key in ours - {signer.keys.key_id} if key in answer.text]
    assert not [key for key in ours if key in (await http["request"].request(operation.method, target)).text]


@pytest.mark.parametrize(
    "path",
    [
        "/static-offline-docs/../api/app.py",
        "/static-offline-docs/..%2f..%2fapi%2fapp.py",
        "/static-offline-docs/%2e%2e/%2e%2e/pyproject.toml",
        "/static-offline-docs//etc/passwd",
        "/static-offline-docs/",
        "/static-offline-docs",
        "/static-offline-docs/%00",
        "/static-offline-docs/none.js",
    ],
)
async def test_the_files_of_the_documentation_page_are_all_that_is_open_beside_it(
    http: dict[str, httpx.AsyncClient], path: str
) -> None:
    for client in http.values():
        page = await client.get("/docs")
        names = {part.split('"')[0] for part in page.text.split("/static-offline-docs/")[1:]}
        assert names
        assert {(await client.get(f"/static-offline-docs/{name}")).status_code for name in names} == {200}
        answer = await client.get(path)
        assert answer.status_code in (400, 404, 405), answer.text[:200]
