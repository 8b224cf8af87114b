"""Callbacks of finished requests: each signed, made again when it is not taken, and given up in the end."""

import base64
from datetime import timedelta

import httpx
import orjson
import pytest
from cryptography.exceptions import InvalidSignature

from fulfilment import callbacks, callbacks_in_flight, name_lookups
from fulfilment.callbacks import RETRY_SECONDS
from fulfilment.public_addresses import is_public
from fulfilment.request_store import cancel_request
from models.outcomes import CallbackOutcome
from tests.activities.calling import call_back, calling, finish, finished, lost, make_due, not_made, submitted
from tests.activities.crossing import USER, change, new_id, one, result_record, submit, table
from tests.activities.residents import attend_briefly
from tests.conftest import Networks
from tests.execution.service import Asked, Service


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run makes the callbacks that are due now, and leaves."""
    attend_briefly(monkeypatch)


def verify(networks: Networks, asked: Asked) -> None:
    """As a receiver that follows Standard Webhooks does, with the request network's public key."""
    version, _, signature = asked.headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
    networks.request.keys.signing.public_key().verify(base64.b64decode(signature), signed)


async def test_a_callback_delivers_the_result_byte_for_byte_with_a_valid_signature(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    [key] = await finished(networks, receiver)
    outcome = await call_back(calling(networks, http))
    assert (outcome.delivered, outcome.given_up, outcome.failed_attempts) == (1, 0, 0)
    [asked] = receiver.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/hook", result_record(key))
    assert asked.headers["webhook-id"] == f"msg_{key}"
    assert asked.headers["content-type"] == "application/json"
    verify(networks, asked)
    asked.body += b" "
    with pytest.raises(InvalidSignature):
        verify(networks, asked)
    assert await lost(networks) == [None]


async def test_a_delivered_callback_is_not_made_again(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    await finished(networks, receiver)
    work = calling(networks, http)
    assert [(await call_back(work)).delivered for _ in range(2)] == [1, 0]
    assert len(receiver.asked) == 1
    assert await not_made(networks) == 0


async def test_a_callback_that_is_not_taken_stays_due_and_comes_again_with_the_same_id_and_body(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answers = [(500, {}, b""), (404, {}, b""), (204, {}, b"")]
    await finished(networks, receiver)
    work = calling(networks, http)
    for failed in (1, 1, 0):
        outcome = await call_back(work)
        assert (outcome.delivered, outcome.failed_attempts, await not_made(networks)) == (1 - failed, failed, failed)
        await make_due(networks)
    assert len({(asked.headers["webhook-id"], asked.body) for asked in receiver.asked}) == 1
    for asked in receiver.asked:
        verify(networks, asked)


async def test_a_callback_that_is_never_taken_is_given_up_with_the_reason(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answer(b"", 503)
    await finished(networks, receiver)
    await change(networks.request, "UPDATE results SET received_at = now() - interval '10 minutes'")
    assert (await call_back(calling(networks, http, give_up=3600))).failed_attempts == 1
    await make_due(networks)
    outcome = await call_back(calling(networks, http, give_up=60))
    assert (outcome.given_up, outcome.failed_attempts) == (1, 0)
    assert await lost(networks) == ["given up after 60 s: status 503"]


async def test_a_redirect_is_not_followed(networks: Networks, http: httpx.AsyncClient, receiver: Service) -> None:
    receiver.answer(b"", 307, Location=receiver.url + "/inside")
    await finished(networks, receiver)
    assert (await call_back(calling(networks, http))).failed_attempts == 1
    assert [asked.path for asked in receiver.asked] == ["/hook"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_private_address_is_refused_and_never_called(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, host: str
) -> None:
    port = receiver.url.rsplit(":", 1)[1]
    key = new_id()
    await submit(networks, key, callback=f"http://{host}:{port}/hook")
    await finish(networks, key)
    outcome = await call_back(calling(networks, http, private=False))
    assert (outcome.given_up, outcome.failed_attempts) == (1, 0)
    assert receiver.asked == []
    assert "is not a public address" in (await lost(networks))[0]
    assert "(" not in (await lost(networks))[0], "the owner does not hear which address it is"


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1", "224.0.0.1"]
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(address)
    assert is_public("93.184.215.14")


async def test_the_address_that_was_looked_at_is_the_one_that_is_called(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another address a moment later gets nothing from it. Public addresses cannot be had here, so
    the resolver and the wire are stood for.
    """
    called: list[httpx.Request] = []

    def wire(request: httpx.Request) -> httpx.Response:
        called.append(request)
        return httpx.Response(200)

    monkeypatch.setattr(name_lookups, "_look_up", lambda _name: ["93.184.215.14"])
    key = new_id()
    await submit(networks, key, callback="https://hooks.example:8443/in?a=b")
    await finish(networks, key)
    async with httpx.AsyncClient(transport=httpx.MockTransport(wire)) as http:
        assert (await call_back(calling(networks, http, private=False))).delivered == 1
    [request] = called
    assert str(request.url) == "https://93.184.215.14:8443/in?a=b"
    assert request.headers["host"] == "hooks.example:8443"
    assert request.extensions["sni_hostname"] == "hooks.example"


@pytest.mark.parametrize(
    "url", ["http://a..b/", f"http://{'a' * 70}.com/", "http://no-such-host.invalid/", "http://127.0.0.1:1/"]
)
@pytest.mark.parametrize("private", [True, False])
async def test_an_address_that_cannot_be_called_does_not_keep_others_from_their_callbacks(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, url: str, private: bool
) -> None:
    ids = [new_id(), new_id()]
    await submit(networks, *ids, callback=url)
    await change(
        networks.request,
        "UPDATE requests SET callback_url = :url WHERE request_id = :key",
        url=receiver.url,
        key=ids[1],
    )
    await finish(networks, *ids)
    outcome = await call_back(calling(networks, http, private=private))
    assert outcome.delivered + outcome.given_up + outcome.failed_attempts == 2
    assert len(receiver.asked) == (1 if private else 0)


async def test_a_receiver_that_never_answers_does_not_hold_up_the_round(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "CALLBACK_SECONDS", 0.2)
    receiver.answers = [(0, {}, b"")]
    await finished(networks, receiver, 3)
    assert (await call_back(calling(networks, http))).failed_attempts == 3


async def test_all_callbacks_of_a_large_group_are_made_in_one_round(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks_in_flight, "PER_USER", 5)
    receiver.answers = [(500, {}, b"")] * 3 + [(200, {}, b"")]
    ids = await finished(networks, receiver, 15)
    outcome = await call_back(calling(networks, http))
    assert (outcome.delivered, outcome.failed_attempts) == (12, 3)
    assert {asked.headers["webhook-id"] for asked in receiver.asked} == {f"msg_{key}" for key in ids}


async def test_the_callback_of_a_cancelled_request_says_cancelled_even_when_a_result_came_late(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    [key] = await submitted(networks, receiver)
    async with networks.request.engine.begin() as connection:
        assert await cancel_request(connection, USER, key)
    await finish(networks, key)
    await call_back(calling(networks, http))
    [asked] = receiver.asked
    body = orjson.loads(asked.body)
    assert (body["request_id"], body["status"], body["data"]) == (str(key), "cancelled", [])
    assert body["error"]["reason"] == "cancelled"


async def test_a_callback_is_made_again_after_a_time_that_grows(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answer(b"", 503)
    await finished(networks, receiver)
    work = calling(networks, http)
    for attempt, seconds in enumerate((*RETRY_SECONDS, RETRY_SECONDS[-1]), start=1):
        before = await one(networks.request, "SELECT now()")
        assert (await call_back(work)).failed_attempts == 1
        after = await one(networks.request, "SELECT now()")
        [(attempts, due)] = await table(networks.request, "SELECT callback_attempts, callback_after FROM requests")
        assert attempts == attempt
        assert before + timedelta(seconds=seconds) <= due <= after + timedelta(seconds=seconds)
        await change(networks.request, "UPDATE requests SET callback_after = now() + interval '1 hour'")
        assert await call_back(work) == CallbackOutcome(), "not before it is time"
        await make_due(networks)
