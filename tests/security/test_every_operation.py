"""What holds for every operation of both APIs as they are served, whatever it answers."""

import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import zstandard

from exchange.wire.http_signature import HEADER, HttpSigner
from tests.security.conftest import LINK, Airlock
from tests.security.documents import OPERATIONS, Operation

ELSEWHERE = {"Origin": "https://somewhere.else", "Access-Control-Request-Method": "PUT"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
DEEP = 50_000

every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=str)
every_body = pytest.mark.parametrize("operation", [item for item in OPERATIONS if item.takes_json], ids=str)


@pytest.fixture
async def http(airlock: Airlock) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """A client of each API, with an operator's key."""
    headers = {"Authorization": f"Bearer {airlock.operator.key}"}
    async with (
        httpx.AsyncClient(base_url=airlock.request.url, headers=headers, trust_env=False, timeout=30) as request,
        httpx.AsyncClient(base_url=airlock.response.url, headers=headers, trust_env=False, timeout=30) as response,
    ):
        yield {"request": request, "response": response}


def is_guarded(answer: httpx.Response) -> None:
    """Carries what tells a browser to make nothing of it, and lets no other site read it."""
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "camera=()" in headers["permissions-policy"]
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] in ("no-store", "private, no-cache")
    assert not [name for name in headers if name.startswith("access-control-")]
    assert not {"x-powered-by", "set-cookie"} & headers.keys()
    if answer.status_code >= 400 and answer.request.method != "HEAD":
        assert headers["content-type"] == "application/problem+json"


@every_operation
async def test_every_answer_is_guarded_and_open_to_no_other_site(
    http: dict[str, httpx.AsyncClient], operation: Operation
) -> None:
    client, path = http[operation.network], operation.path()
    for headers in ({}, {"Authorization": "Bearer alk_wrong"}, {"Authorization": "", HEADER: "x"}):
        is_guarded(await client.request(operation.method, path, headers=headers | ELSEWHERE))
    is_guarded(await client.request(operation.method, path, content=b"x" * 9_000_000, headers=ELSEWHERE))
    is_guarded(await client.request(operation.method, path + "/nothing-here", headers=ELSEWHERE))


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/docs", "/openapi.json", "/static-offline-docs/x", "//", "/docs/../x"]
)
async def test_every_other_answer_is_guarded_too(http: dict[str, httpx.AsyncClient], path: str) -> None:
    for client in http.values():
        is_guarded(await client.get(path, headers=ELSEWHERE))


async def test_the_links_signed_answers_are_guarded_too(airlock: Airlock, http: dict[str, httpx.AsyncClient]) -> None:
    signer = HttpSigner(airlock.networks.response.keys, LINK)
    for target, status in (("/link/v1/streams/results", 200), ("/link/v1/streams/requests/batches?after=999999", 422)):
        signature = signer.sign_request("GET", target, b"")
        answer = await http["request"].get(target, headers={HEADER: signature} | ELSEWHERE)
        assert answer.status_code == status
        is_guarded(answer)


@pytest.mark.parametrize("template", sorted({(item.network, item.template) for item in OPERATIONS}))
async def test_other_methods_are_refused_and_those_that_there_are_are_named(
    http: dict[str, httpx.AsyncClient], template: tuple[str, str]
) -> None:
    here = {item.method: item for item in OPERATIONS if (item.network, item.template) == template}
    path = next(iter(here.values())).path()
    for method in METHODS:
        if method in here:
            continue
        answer = await http[template[0]].request(method, path, headers=ELSEWHERE)
        assert answer.status_code == 405, method
        assert set(answer.headers["allow"].split(", ")) == here.keys()
        is_guarded(answer)


async def test_a_slash_too_many_is_another_address_and_redirects_nobody(http: dict[str, httpx.AsyncClient]) -> None:
    for operation in OPERATIONS:
        answer = await http[operation.network].request(operation.method, operation.path() + "/")
        assert answer.status_code == 404, str(operation)
        assert "location" not in answer.headers


def deep_bodies() -> dict[str, bytes]:
    return {
        "arrays": b"[" * DEEP + b"]" * DEEP,
        "objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        "unclosed": b"[" * DEEP,
        "in a value": b'{"name":"deep","visibility":"public","value":' + b"[" * DEEP + b"]" * DEEP + b"}",
        "in parameters": b'{"type":"airport","params":{"iata":' + b"[" * DEEP + b"]" * DEEP + b"}}",
        "in a schema": b'{"name":"deep","executor":{"kind":"sql","source":"sample","query":"SELECT 1"},"params_schema":'
        + b'{"type":"object","not":' * 20_000
        + b"{}"
        + b"}" * 20_000
        + b"}",
        "a long number": b'{"value":' + b"9" * 500_000 + b',"visibility":"public"}',
    }


@every_body
@pytest.mark.parametrize("name", deep_bodies())
async def test_json_that_is_too_deep_or_too_long_is_refused_like_any_other_mistake(
    airlock: Airlock, http: dict[str, httpx.AsyncClient], operation: Operation, name: str
) -> None:
    target, body = operation.path(name="deep"), deep_bodies()[name]
    headers = {"Content-Type": "application/json"}
    if operation.path().startswith("/link/"):
        headers[HEADER] = HttpSigner(airlock.networks.response.keys, LINK).sign_request(operation.method, target, body)
    answer = await http[operation.network].request(operation.method, target, content=body, headers=headers)
    assert answer.status_code in (400, 404, 413, 422), answer.text
    assert len(answer.content) < 5000, "says no more than a person can read"


@every_body
@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "br", "gzip, gzip", "identity"])
async def test_a_compressed_body_is_never_inflated(
    airlock: Airlock, http: dict[str, httpx.AsyncClient], operation: Operation, coding: str
) -> None:
    """The parsers get the bytes as they came, which are no JSON: there is nothing that a bomb could grow in."""
    told = json.dumps({"name": "inflated", "value": "0" * 500_000, "visibility": "public"}).encode()
    packed: dict[str, Callable[[bytes], bytes]]
    packed = {"gzip": gzipped, "deflate": zlib.compress, "zstd": zstandard.compress}
    body = packed.get(coding, gzipped)(told)
    target, headers = operation.path(name="inflated"), {"Content-Type": "application/json", "Content-Encoding": coding}
    if target.startswith("/link/"):
        headers[HEADER] = HttpSigner(airlock.networks.response.keys, LINK).sign_request(operation.method, target, body)
    answer = await http[operation.network].request(operation.method, target, content=body, headers=headers)
    assert answer.status_code in (400, 404, 415, 422), answer.text
    assert (await http["response"].get("/v1/settings/inflated")).status_code == 404


def gzipped(content: bytes) -> bytes:
    maker = zlib.compressobj(wbits=31)
    return maker.compress(content) + maker.flush()


def test_the_documents_were_read() -> None:
    found: dict[str, Any] = {
        network: sum(item.network == network for item in OPERATIONS) for network in ("request", "response")
    }
    assert min(found.values()) > 15, found
    assert sum(item.takes_json for item in OPERATIONS) >= 8
