"""From submission to the end of a group: expiry, and callbacks that are signed, repeated and given up."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from cryptography.exceptions import InvalidSignature
from temporalio.testing import ActivityEnvironment

from activities import fulfilling
from activities.fulfilling import FulfilmentActivities
from fulfilment.request_store import cancel_request
from models.outcomes import CallbackOutcome, GroupState
from models.streams import BatchRef
from tests.activities.crossing import USER, change, new_id, one, result_record, submit, table
from tests.conftest import Networks
from tests.execution.service import Asked, Service, serving


@pytest.fixture
async def receiver() -> AsyncIterator[Service]:
    async with serving() as service:
        service.answer(b"")
        yield service


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """As the worker makes it."""
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        yield client


def fulfilment(
    networks: Networks, http: httpx.AsyncClient, *, private: bool = True, give_up: float = 3600
) -> FulfilmentActivities:
    return FulfilmentActivities(networks.request.engine, networks.request.keys, private, give_up, http)


async def settle(worker: FulfilmentActivities, group: BatchRef) -> GroupState:
    state: GroupState = await ActivityEnvironment().run(worker.settle_group, group)
    return state


async def call_back(worker: FulfilmentActivities, group: BatchRef) -> CallbackOutcome:
    outcome: CallbackOutcome = await ActivityEnvironment().run(worker.call_back, group)
    return outcome


async def finish(networks: Networks, *ids: UUID, body: bytes | None = None) -> None:
    for key in ids:
        await change(
            networks.request,
            "INSERT INTO results (request_id, user_id, status, body, epoch, sequence)"
            " VALUES (:key, :user, 'completed', :body, 1, 1)",
            key=key,
            user=USER,
            body=body or result_record(key),
        )


async def submitted(networks: Networks, service: Service, count: int = 1) -> tuple[BatchRef, list[UUID]]:
    ids = [new_id() for _ in range(count)]
    return await submit(networks, *ids, callback=service.url + "/hook"), ids


async def lost(networks: Networks) -> list[Any]:
    return [reason for (reason,) in await table(networks.request, "SELECT callback_lost FROM requests")]


async def test_a_group_says_what_it_waits_for_and_is_fulfilled_when_nothing_is_left(
    networks: Networks, http: httpx.AsyncClient
) -> None:
    ids = [new_id(), new_id()]
    group = await submit(networks, *ids, deadline=100)
    worker = fulfilment(networks, http)
    state = await settle(worker, group)
    assert (state.size, state.outstanding, state.callbacks_due) == (2, 2, 0)
    assert state.next_deadline_in is not None
    assert 90 < state.next_deadline_in <= 100
    assert await one(networks.request, "SELECT fulfilled_at FROM request_groups") is None
    await finish(networks, *ids)
    state = await settle(worker, group)
    assert (state.outstanding, state.next_deadline_in) == (0, None)
    assert await one(networks.request, "SELECT fulfilled_at FROM request_groups") is not None


async def test_what_is_overdue_expires_and_what_has_a_result_does_not(
    networks: Networks, http: httpx.AsyncClient
) -> None:
    done, open_ = new_id(), new_id()
    group = await submit(networks, done, open_, deadline=-1)
    await finish(networks, done)
    state = await settle(fulfilment(networks, http), group)
    assert state.outstanding == 0
    closed = dict(await table(networks.request, "SELECT request_id, closed FROM requests"))
    assert closed == {done: None, open_: "expired"}


async def test_a_deadline_that_has_not_come_closes_nothing_and_another_group_is_left_alone(
    networks: Networks, http: httpx.AsyncClient
) -> None:
    group = await submit(networks, new_id(), deadline=1000)
    await submit(networks, new_id(), deadline=-1)
    assert (await settle(fulfilment(networks, http), group)).outstanding == 1
    assert await table(networks.request, "SELECT closed FROM requests") == [(None,), (None,)]


def verify(networks: Networks, asked: Asked) -> None:
    """As a receiver that follows Standard Webhooks does, with the request network's public key."""
    version, _, signature = asked.headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = f"{asked.headers['webhook-id']}.{asked.headers['webhook-timestamp']}.".encode() + asked.body
    networks.request.keys.signing.public_key().verify(base64.b64decode(signature), signed)


async def test_a_callback_delivers_the_result_byte_for_byte_with_a_valid_signature(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    group, [key] = await submitted(networks, receiver)
    await finish(networks, key)
    outcome = await call_back(fulfilment(networks, http), group)
    assert (outcome.delivered, outcome.given_up, outcome.due) == (1, 0, 0)
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
    group, [key] = await submitted(networks, receiver)
    await finish(networks, key)
    worker = fulfilment(networks, http)
    assert (await settle(worker, group)).callbacks_due == 1
    await call_back(worker, group)
    await call_back(worker, group)
    assert len(receiver.asked) == 1
    assert (await settle(worker, group)).callbacks_due == 0


async def test_a_callback_that_is_not_taken_stays_due_and_comes_again_with_the_same_id_and_body(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answers = [(500, {}, b""), (404, {}, b""), (204, {}, b"")]
    group, [key] = await submitted(networks, receiver)
    await finish(networks, key)
    worker = fulfilment(networks, http)
    outcomes = [await call_back(worker, group) for _ in range(3)]
    assert [(outcome.delivered, outcome.due) for outcome in outcomes] == [(0, 1), (0, 1), (1, 0)]
    assert len({(asked.headers["webhook-id"], asked.body) for asked in receiver.asked}) == 1
    for asked in receiver.asked:
        verify(networks, asked)


async def test_a_callback_that_is_never_taken_is_given_up_with_the_reason(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answer(b"", 503)
    group, [key] = await submitted(networks, receiver)
    await finish(networks, key)
    await change(networks.request, "UPDATE results SET received_at = now() - interval '10 minutes'")
    assert (await call_back(fulfilment(networks, http, give_up=3600), group)).due == 1
    outcome = await call_back(fulfilment(networks, http, give_up=60), group)
    assert (outcome.given_up, outcome.due) == (1, 0)
    assert await lost(networks) == ["given up after 60 s: status 503"]


async def test_a_redirect_is_not_followed(networks: Networks, http: httpx.AsyncClient, receiver: Service) -> None:
    receiver.answer(b"", 307, Location=receiver.url + "/inside")
    group, [key] = await submitted(networks, receiver)
    await finish(networks, key)
    assert (await call_back(fulfilment(networks, http), group)).due == 1
    assert [asked.path for asked in receiver.asked] == ["/hook"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_private_address_is_refused_and_never_called(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, host: str
) -> None:
    port = receiver.url.rsplit(":", 1)[1]
    key = new_id()
    group = await submit(networks, key, callback=f"http://{host}:{port}/hook")
    await finish(networks, key)
    outcome = await call_back(fulfilment(networks, http, private=False), group)
    assert (outcome.given_up, outcome.due) == (1, 0)
    assert receiver.asked == []
    assert "is not a public address" in (await lost(networks))[0]


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "192.168.1.1", "100.64.0.1", "fd00::1", "fe80::1", "224.0.0.1"]
)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not fulfilling._is_public(address)
    assert fulfilling._is_public("93.184.215.14")


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

    async def resolve(_host: str, *_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.215.14", 0))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    key = new_id()
    group = await submit(networks, key, callback="https://hooks.example:8443/in?a=b")
    await finish(networks, key)
    async with httpx.AsyncClient(transport=httpx.MockTransport(wire)) as http:
        assert (await call_back(fulfilment(networks, http, private=False), group)).delivered == 1
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
    group = await submit(networks, *ids, callback=url)
    await change(
        networks.request,
        "UPDATE requests SET callback_url = :url WHERE request_id = :key",
        url=receiver.url,
        key=ids[1],
    )
    await finish(networks, *ids)
    outcome = await call_back(fulfilment(networks, http, private=private), group)
    assert outcome.delivered + outcome.given_up + outcome.due == 2
    assert len(receiver.asked) == (1 if private else 0)


async def test_a_receiver_that_never_answers_does_not_hold_up_the_round(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfilling, "CALLBACK_SECONDS", 0.2)
    receiver.answers = [(0, {}, b"")]
    group, ids = await submitted(networks, receiver, 3)
    await finish(networks, *ids)
    assert (await call_back(fulfilment(networks, http), group)).due == 3


async def test_all_callbacks_of_a_large_group_are_made_in_one_round(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfilling, "CALLBACKS_AT_A_TIME", 5)
    receiver.answers = [(500, {}, b"")] * 3 + [(200, {}, b"")]
    group, ids = await submitted(networks, receiver, 15)
    await finish(networks, *ids)
    outcome = await call_back(fulfilment(networks, http), group)
    assert (outcome.delivered, outcome.due) == (12, 3)
    assert {asked.headers["webhook-id"] for asked in receiver.asked} == {f"msg_{key}" for key in ids}


async def test_the_callback_of_a_cancelled_request_says_cancelled_even_when_a_result_came_late(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    group, [key] = await submitted(networks, receiver)
    async with networks.request.engine.begin() as connection:
        assert await cancel_request(connection, USER, key)
    await finish(networks, key)
    await call_back(fulfilment(networks, http), group)
    [asked] = receiver.asked
    body = orjson.loads(asked.body)
    assert (body["request_id"], body["status"], body["data"]) == (str(key), "cancelled", [])
    assert body["error"]["reason"] == "cancelled"
