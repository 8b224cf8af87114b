"""Requests whose framing is not plain: two readers may never disagree about where one ends and the next begins.

Raw bytes against both APIs as they are served. What is no HTTP at all: tests/api_request/test_http.py.
"""

import asyncio

import httpx
import pytest

import api.serving
from exchange.wire.http_signature import HEADER, HttpSigner
from tests.api_request.serving import User, serving, settings_for
from tests.security.conftest import LINK, Airlock
from tests.security.processes import ApiProcess
from tests.security.raw import call, send

SMUGGLED = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
CHUNKED = b"Transfer-Encoding: chunked"


@pytest.fixture(params=["request", "response"])
def served(airlock: Airlock, request: pytest.FixtureRequest) -> ApiProcess:
    """Each API in turn."""
    found: ApiProcess = getattr(airlock, request.param)
    return found


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 2\r\nContent-Length: 40",
        b"Content-Length: 2, 2",
        b"Content-Length: +2",
        b"Content-Length: -2",
        b"Content-Length: 0x2",
        b"Content-Length: 99999999999999999999999",
        b"Content-Length:\r\n 2",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"X: folded\r\n onto the next line",
        b"X: a\x00b",
        b"X: a\rY: b",
        b"X\x00: a",
        b"X Y: a",
        b": a",
    ],
)
async def test_an_ambiguous_head_is_refused_and_ends_the_connection(served: ApiProcess, head: bytes) -> None:
    answered = await send(served.port, b"POST /healthz HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\nab" + SMUGGLED)
    assert (answered.status, answered.answers) == (400, 1)


@pytest.mark.parametrize("first", [CHUNKED + b"\r\nContent-Length: 4", b"Content-Length: 4\r\n" + CHUNKED])
async def test_of_two_framings_one_counts_and_nothing_is_read_after_it(served: ApiProcess, first: bytes) -> None:
    raw = b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + first + b"\r\n\r\n0\r\n\r\n" + SMUGGLED
    assert (await send(served.port, raw)).answers == 1  # RFC 9112, 6.1: the connection has to end


async def test_http_1_0_knows_no_chunks(served: ApiProcess) -> None:
    raw = b"GET /healthz HTTP/1.0\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n0\r\n\r\n" + SMUGGLED
    assert (await send(served.port, raw)).answers == 1


@pytest.mark.parametrize("chunks", [b"zz\r\n\r\n", b"ffffffffffffffffffff\r\na\r\n", b"-1\r\na\r\n", b"5\r\nab"])
async def test_a_body_of_broken_chunks_is_the_callers_mistake_and_not_ours(
    airlock: Airlock, served: ApiProcess, chunks: bytes
) -> None:
    key = f"Authorization: Bearer {airlock.operator.key}".encode()
    for method, target in (
        ("POST", "/link/v1/streams/results/batches"),
        ("POST", "/v1/requests"),
        ("PUT", "/v1/settings/a"),
    ):
        head = call(method, target, key, CHUNKED, b"Content-Type: application/json")
        answered = await send(served.port, head + chunks, then_leave=True)
        assert answered.status in (0, 400, 401, 404, 405, 422), (target, answered.content[:300])
    assert b"Traceback" not in served.log.read_bytes()


async def test_an_absolute_target_is_its_path_and_opens_nothing_else(airlock: Airlock, served: ApiProcess) -> None:
    target = "http://somewhere.else/v1/settings"
    key = f"Authorization: Bearer {airlock.operator.key}".encode()
    assert (await send(served.port, call("GET", target))).status == 401
    assert (await send(served.port, call("GET", target, key))).status == 200
    assert (await send(served.port, call("GET", "http://x/v1/../v1/settings", key))).status == 404
    assert (await send(served.port, call("CONNECT", "somewhere.else:80", key))).status in (400, 404, 405)


async def test_two_keys_are_none(airlock: Airlock, served: ApiProcess) -> None:
    good, bad = f"Authorization: Bearer {airlock.operator.key}".encode(), b"Authorization: Bearer alk_wrong"
    for headers in ((good, bad), (bad, good), (good, good), (good, b"Authorization: Basic b2xnYTp4")):
        assert (await send(served.port, call("GET", "/v1/settings", *headers))).status == 401
    assert (await send(served.port, call("GET", "/v1/settings", good))).status == 200


async def test_two_signatures_are_none(airlock: Airlock) -> None:
    target = "/link/v1/streams/results"
    signer = HttpSigner(airlock.networks.response.keys, LINK)
    one, other = (f"{HEADER}: {signer.sign_request('GET', target, b'')}".encode() for _ in range(2))
    for headers in ((one, other), (one, f"{HEADER}: x".encode()), (one, one)):
        assert (await send(airlock.request.port, call("GET", target, *headers))).status == 401
    assert (await send(airlock.request.port, call("GET", target, one))).status == 200


async def test_there_is_no_http_2_to_attack(served: ApiProcess) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    assert b"HTTP/1.1 2" not in (answered := await send(served.port, preface)).content
    assert not answered.content.startswith(b"\x00\x00"), "a SETTINGS frame"
    upgrade = (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__")
    assert (await send(served.port, call("GET", "/healthz", *upgrade))).status == 200


async def test_too_many_or_too_large_headers_are_refused(served: ApiProcess) -> None:
    many = [b"X-%d: 1" % number for number in range(500)]
    assert (await send(served.port, call("GET", "/healthz", *many))).status == 431
    assert (await send(served.port, call("GET", "/" + "a" * 70_000))).status == 414


@pytest.mark.parametrize(
    "drip",
    [b"", b"GET /healthz HTTP/1.1\r\nX: ", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"],
    ids=["silent", "slow", "idle"],
)
async def test_who_does_not_come_to_the_end_of_a_head_is_cut_off(
    airlock: Airlock, monkeypatch: pytest.MonkeyPatch, drip: bytes
) -> None:
    monkeypatch.setattr(api.serving, "HEADER_SECONDS", 0.3)
    async with serving(settings_for(airlock.networks)) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
        writer.write(drip)
        async with asyncio.timeout(20):
            try:
                while await reader.read(65536):
                    writer.write(b"a" if b"X" in drip else b"")
            except ConnectionError:
                pass
        writer.close()


async def test_slow_callers_hold_up_nobody_else(airlock: Airlock, served: ApiProcess, user: User) -> None:
    beginnings = [
        b"",
        b"G",
        b"GET /healthz HTTP/1.1\r\nX: a",
        b"POST /link/v1/streams/results/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 9999\r\n\r\n{",
        b"PUT /v1/settings/a HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"\r\n\r\n1\r\na\r\n",
    ]
    writers = []
    for number in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(beginnings[number % len(beginnings)])
        writers.append(writer)
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as http:
        key = {"Authorization": f"Bearer {airlock.operator.key}"}
        for _ in range(20):
            assert (await http.get("/v1/settings", headers=key)).status_code == 200
    for writer in writers:
        writer.close()
