"""Signatures over HTTP: what is not signed for exactly this question is believed by neither side."""

import time

import httpx
import pytest

from exchange.carriers.http import LinkClient
from exchange.errors import BadSignature, LinkPaused
from exchange.wire.http_signature import HEADER, HttpSigner
from models.streams import StreamName
from tests.link.batches import seal
from tests.link.conftest import Crossing
from tests.link.strangers import other_keys

RESULTS, REQUESTS = StreamName.RESULTS, StreamName.REQUESTS
STATE = "/link/v1/streams/results"


class OffClock(HttpSigner):
    """Signs for a time that is so many seconds off."""

    seconds = 0

    def sign_request(self, method: str, target: str, body: bytes) -> str:
        moment, nonce = str(int(time.time()) + self.seconds), "0" * 32
        return self._header("request", self._request_text(method, target, body, moment, nonce), moment, nonce)


async def asked(crossing: Crossing, signature: str | None, target: str = STATE, method: str = "GET") -> httpx.Response:
    headers = {} if signature is None else {HEADER: signature}
    async with httpx.AsyncClient(base_url=crossing.url, trust_env=False) as http:
        return await http.request(method, target, headers=headers)


async def test_a_signed_question_is_answered_with_a_signature_that_fits_it(crossing: Crossing) -> None:
    signer = crossing.signer()
    signature = signer.sign_request("GET", STATE, b"")
    found = await asked(crossing, signature)
    assert found.status_code == 200
    signer.verify_response(found.headers[HEADER], signature, 200, found.content)
    for other in [
        (found.headers[HEADER], signer.sign_request("GET", STATE, b""), 200, found.content),
        (found.headers[HEADER], signature, 204, found.content),
        (found.headers[HEADER], signature, 200, found.content + b" "),
    ]:
        with pytest.raises(BadSignature):
            signer.verify_response(*other)


async def test_a_refusal_of_the_protocol_is_signed_too(crossing: Crossing) -> None:
    signer, target = crossing.signer(), "/link/v1/streams/requests/batches?after=5&wait=0"
    signature = signer.sign_request("GET", target, b"")
    found = await asked(crossing, signature, target)
    assert found.status_code == 422
    signer.verify_response(found.headers[HEADER], signature, 422, found.content)


@pytest.mark.parametrize("signature", [None, "", "x", "key=0; time=0", "é" * 10])
async def test_without_a_signature_nothing_is_told(crossing: Crossing, signature: str | None) -> None:
    async with httpx.AsyncClient(base_url=crossing.url, trust_env=False) as http:
        headers = [] if signature is None else [(HEADER.encode(), signature.encode())]
        found = await http.get(STATE, headers=headers)
    assert (found.status_code, found.json()["type"]) == (401, "urn:airlock:problem:bad-signature")
    assert HEADER not in found.headers


async def test_an_api_key_opens_no_part_of_the_link(crossing: Crossing) -> None:
    async with httpx.AsyncClient(base_url=crossing.url, trust_env=False) as http:
        assert (await http.get(STATE, headers={"Authorization": "Bearer alk_x"})).status_code == 401


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/link/v1/streams/health"),
        ("GET", STATE + "?x=1"),
        ("GET", "/link/v1/streams/requests/batches?after=0"),
        ("POST", STATE + "/batches"),
    ],
)
async def test_a_signature_serves_for_no_other_call(crossing: Crossing, method: str, target: str) -> None:
    signature = crossing.signer().sign_request("GET", STATE, b"")
    found = await asked(crossing, signature, target, method)
    assert (found.status_code, found.json()["type"]) == (401, "urn:airlock:problem:bad-signature")


async def test_the_signature_is_looked_at_before_the_parameters(crossing: Crossing) -> None:
    """A stranger is not told which streams and parameters there are."""
    for target in ("/link/v1/streams/secrets", "/link/v1/streams/requests/batches?after=x"):
        assert (await asked(crossing, "", target)).status_code == 401


async def test_a_stranger_is_refused_whatever_key_it_names_and_the_link_pauses(crossing: Crossing) -> None:
    keys = crossing.networks.response.keys
    for stranger, reason in ((other_keys(keys), "not trusted"), (other_keys(keys, keys.key_id), "does not fit")):
        client = LinkClient(crossing.url, HttpSigner(stranger, "test"))
        wire = await seal(crossing.networks.response, RESULTS, b"{}")
        with pytest.raises(LinkPaused, match=reason):
            await client.push(RESULTS, wire)
        with pytest.raises(LinkPaused, match=reason):
            await client.pull(REQUESTS, 0, 0)
        await client.aclose()
    assert (await crossing.receiver()).sequence == 0


async def test_the_request_networks_own_key_is_no_key_of_the_response_network(crossing: Crossing) -> None:
    client = LinkClient(crossing.url, HttpSigner(crossing.networks.request.keys, "test"))
    with pytest.raises(LinkPaused):
        await client.state(RESULTS)
    await client.aclose()


async def test_another_links_signature_is_refused(crossing: Crossing) -> None:
    client = LinkClient(crossing.url, HttpSigner(crossing.networks.response.keys, "other"))
    with pytest.raises(LinkPaused):
        await client.state(RESULTS)
    await client.aclose()


@pytest.mark.parametrize(("seconds", "direction"), [(-400, "past"), (400, "future")])
async def test_clocks_that_differ_too_much_pause_the_link_and_say_so(
    crossing: Crossing, seconds: int, direction: str
) -> None:
    signer = OffClock(crossing.networks.response.keys, "test")
    object.__setattr__(signer, "seconds", seconds)
    client = LinkClient(crossing.url, signer)
    with pytest.raises(LinkPaused, match=direction):
        await client.state(RESULTS)
    await client.aclose()
    found = await asked(crossing, signer.sign_request("GET", STATE, b""))
    assert found.json()["type"] == "urn:airlock:problem:clock-skew"
    assert abs(found.json()["server_time"] - time.time()) < 60


async def test_clocks_that_differ_a_little_do_no_harm(crossing: Crossing) -> None:
    for seconds in (-200, 200):
        signer = OffClock(crossing.networks.response.keys, "test")
        object.__setattr__(signer, "seconds", seconds)
        client = LinkClient(crossing.url, signer)
        assert (await client.state(RESULTS)).received == 0
        await client.aclose()
