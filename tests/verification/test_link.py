"""Summaries and repairs over the link: signed both ways, bounded, and believed only then."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from exchange.audit.summaries import BATCHES_PER_AUDIT
from exchange.carriers.http import LinkClient
from exchange.errors import BadSignature, LinkError, LinkPaused, Malformed
from exchange.recovery.remote_side import RemoteSide
from exchange.wire.http_signature import HEADER, HttpSigner
from models.streams import StreamName
from tests.activities.crossing import LINK, one
from tests.verification.world import RESULTS, World

PATHS = ("summaries", "repairs", "restorations")


class Tampering(httpx.AsyncBaseTransport):
    """Lets everything through and changes the answers."""

    def __init__(self, change: Any) -> None:
        self._through = httpx.AsyncHTTPTransport()
        self._change = change

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await self._through.handle_async_request(request)
        body, headers = self._change(await response.aread(), dict(response.headers))
        headers["content-length"] = str(len(body))
        return httpx.Response(response.status_code, headers=headers, stream=httpx.ByteStream(body))


@asynccontextmanager
async def far(world: World, change: Any = None, signer: HttpSigner | None = None) -> AsyncIterator[RemoteSide]:
    link = LinkClient(world.url, signer or HttpSigner(world.networks.response.keys, LINK))
    if change is not None:
        await link._http.aclose()
        link._http = httpx.AsyncClient(base_url=world.url, transport=Tampering(change))
    yield RemoteSide(link)
    await link.aclose()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("signature", ["", "key=0123456789abcdef; time=1; nonce=0; value=x"])
async def test_who_does_not_sign_learns_and_changes_nothing(world: World, path: str, signature: str) -> None:
    async with httpx.AsyncClient(base_url=world.url) as http:
        answer = await http.post(f"/link/v1/streams/results/{path}", content=b"{}", headers={HEADER: signature})
        trace = await http.get("/link/v1/traces/0198c0de-0000-7000-8000-0000000000aa")
    assert (answer.status_code, trace.status_code) == (401, 401)


async def test_a_signature_by_the_wrong_network_is_refused(world: World) -> None:
    async with far(world, signer=HttpSigner(world.networks.request.keys, LINK)) as side:
        with pytest.raises(LinkPaused):
            await side.head(RESULTS)


async def test_a_tampered_or_unsigned_summary_is_not_believed(world: World) -> None:
    await world.answered()

    def other(body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        return body.replace(b'"sequence":1', b'"sequence":2'), headers

    def unsigned(body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
        return body, {name: value for name, value in headers.items() if name.lower() != HEADER.lower()}

    for change in (other, unsigned):
        async with far(world, change) as side:
            with pytest.raises(BadSignature):
                await side.head(RESULTS)
    async with far(world, lambda body, headers: (body, headers)) as side:
        assert (await side.head(RESULTS)).sequence == 1


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", '{"ask":"all"}', '{"ask":"digest","first":0}', '{"ask":"audit","first":5,"last":4}']
)
async def test_a_question_that_is_none_is_refused_and_the_refusal_is_signed(world: World, body: str) -> None:
    with pytest.raises(Malformed):
        await world.link.ask(RESULTS, body.encode())


async def test_an_answer_covers_a_bounded_number_of_batches_and_says_how_far_it_came(world: World) -> None:
    for _ in range(5):
        await world.answered(1)
    audit = await RemoteSide(world.link).audit(RESULTS, 1, 1, 2**40)
    assert (audit.batches, audit.through) == (5, 5), "what is not there costs nothing"
    assert BATCHES_PER_AUDIT <= 1000


async def test_what_crosses_in_an_answer_is_numbers_and_ids_only(world: World) -> None:
    await world.answered()
    crossed = [
        await world.link.ask(stream, json.dumps({"ask": ask, "first": 1, "last": 9}).encode())
        for stream in StreamName
        for ask in ("head", "digest", "audit", "orphans")
    ]
    everything = b"".join(crossed)
    for secret in (b"params", b'"data"', b"user_id", b"executor"):
        assert secret not in everything


async def test_batches_of_a_stream_that_is_not_received_there_are_not_taken(world: World) -> None:
    await world.answered()
    wire = await RemoteSide(world.link).stored(StreamName.REQUESTS, 1, 1)
    assert wire is not None
    with pytest.raises(LinkError):
        await world.link.restore(RESULTS, wire)
    with pytest.raises(LinkError):
        await world.link.restore(StreamName.SETTINGS, wire)
    assert await one(world.networks.request, "SELECT count(*) FROM received_batches WHERE stream = 'requests'") == 0
