"""Receivers that never answer, names that never resolve, and thousands of callbacks of one user keep nobody waiting."""

import asyncio
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from fulfilment import callbacks, callbacks_in_flight, name_lookups
from fulfilment.callback_store import (
    DueCallback,
    callbacks_due,
    put_off_host,
    send_callbacks_again,
    undelivered_callbacks,
)
from fulfilment.callbacks_in_flight import PER_HOST, PER_USER
from fulfilment.name_lookups import NameLookups
from tests.activities.calling import call_back, calling, finish, finished, lost, make_due, not_made
from tests.activities.crossing import change, new_id, one, submit, table
from tests.activities.residents import attend_briefly
from tests.conftest import Networks
from tests.execution.service import Service, serving
from tests.listening import eventually


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run makes the callbacks that are due now, and leaves."""
    attend_briefly(monkeypatch)


@pytest.fixture
async def silent() -> AsyncIterator[Service]:
    """Takes calls and never answers."""
    async with serving() as service:
        service.answers = [(0, {}, b"")]
        yield service


async def due(networks: Networks, count: int, *urls: str, user: UUID | None = None) -> list[UUID]:
    """Finished requests with callbacks to these addresses in turn."""
    ids = [new_id() for _ in range(count)]
    await submit(networks, *ids, callback=urls[0])
    for number, key in enumerate(ids):
        await change(
            networks.request,
            "UPDATE requests SET callback_url = :url, user_id = coalesce(:user, user_id) WHERE request_id = :key",
            url=urls[number % len(urls)],
            user=user,
            key=key,
        )
    await finish(networks, *ids)
    return ids


async def stop(attending: "asyncio.Task[object]") -> None:
    attending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attending


async def test_a_receiver_that_never_answers_takes_only_places_of_its_own(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, silent: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "CALLBACK_SECONDS", 3600.0)
    await due(networks, 150, silent.url)
    await due(networks, 12, receiver.url, user=uuid4())
    attending = asyncio.create_task(call_back(calling(networks, http)))

    async def delivered() -> bool:
        return len(receiver.asked) == 12

    await eventually(delivered)
    assert len(silent.asked) == PER_HOST
    await stop(attending)


async def test_many_hosts_of_one_user_have_the_places_of_one_user(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, silent: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "CALLBACK_SECONDS", 3600.0)
    port = silent.url.rsplit(":", 1)[1]
    monkeypatch.setattr(name_lookups, "_look_up", lambda _name: ["127.0.0.1"])
    await due(networks, 120, *(f"http://h{number}.example:{port}/" for number in range(60)))
    await due(networks, 3, receiver.url, user=uuid4())
    attending = asyncio.create_task(call_back(calling(networks, http)))

    async def delivered() -> bool:
        return len(receiver.asked) == 3 and len(silent.asked) == PER_USER

    await eventually(delivered)
    await stop(attending)


async def test_a_host_that_does_not_answer_is_put_off_with_all_its_callbacks(
    networks: Networks, http: httpx.AsyncClient, silent: Service, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks, "CALLBACK_SECONDS", 0.2)
    await due(networks, 100, silent.url)
    await due(networks, 1, receiver.url)
    outcome = await call_back(calling(networks, http))
    assert outcome.delivered == 1
    assert len(silent.asked) <= 2 * PER_HOST, "the others were put off without an attempt"
    assert await not_made(networks) == 100


async def test_old_callbacks_to_a_host_that_does_not_answer_are_given_up_together(networks: Networks) -> None:
    await due(networks, 50, "http://silent.example/a", "http://u:p@silent.example/b")
    other = await due(networks, 1, "http://other.example/")
    async with networks.request.engine.begin() as connection:
        assert await put_off_host(connection, "silent.example", 60, 3600) == 0
    await change(networks.request, "UPDATE results SET received_at = now() - interval '2 hours'")
    async with networks.request.engine.begin() as connection:
        assert await put_off_host(connection, "silent.example", 60, 3600) == 50
    left = await table(networks.request, "SELECT request_id, callback_after FROM requests WHERE callback_at IS NULL")
    assert left == [(other[0], None)]


async def test_a_receiver_that_is_gone_ends_the_callback(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answer(b"", 410)
    await finished(networks, receiver)
    outcome = await call_back(calling(networks, http))
    assert (outcome.given_up, outcome.failed_attempts) == (1, 0)
    assert await lost(networks) == ["its receiver answered 410 Gone"]


@pytest.mark.parametrize("form", ["seconds", "date"])
@pytest.mark.parametrize("status", [429, 503])
async def test_the_time_that_a_receiver_asks_for_is_kept(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, form: str, status: int
) -> None:
    moment = datetime.now(UTC) + timedelta(seconds=7200)
    receiver.answer(b"", status, Retry_After="7200" if form == "seconds" else format_datetime(moment, usegmt=True))
    await finished(networks, receiver, 9)
    await call_back(calling(networks, http))
    assert len(receiver.asked) <= PER_HOST, "the others wait for the same time"
    soonest = await one(networks.request, "SELECT min(callback_after) FROM requests")
    assert timedelta(seconds=7100) < soonest - datetime.now(UTC) <= timedelta(seconds=7200)


@pytest.mark.parametrize(
    ("header", "seconds"), [("", 0), ("-5", 0), ("soon", 0), ("9" * 400, 86_400), ("²", 0), ("Thu, 01 Jan 1970", 0)]
)
def test_a_strange_retry_after_is_bounded(header: str, seconds: float) -> None:
    assert callbacks._retry_after(header) == seconds


async def test_a_name_that_does_not_resolve_holds_up_no_other_name(monkeypatch: pytest.MonkeyPatch) -> None:
    answered = threading.Event()
    asked: list[str] = []

    def look_up(name: str) -> list[str]:
        asked.append(name)
        if name.startswith("slow"):
            answered.wait()
        return ["93.184.215.14"]

    monkeypatch.setattr(name_lookups, "_look_up", look_up)
    monkeypatch.setattr(name_lookups, "LOOKUP_SECONDS", 0.2)
    lookups, hostile, user = NameLookups(), uuid4(), uuid4()
    try:
        slow = [lookups.addresses(f"slow{number}.example", hostile) for number in range(100)]
        assert all(isinstance(each, TimeoutError) for each in await asyncio.gather(*slow, return_exceptions=True))
        assert len(asked) == name_lookups.PER_USER
        assert await asyncio.to_thread(len, "x") == 1, "the threads that apply results are others"
        monkeypatch.setattr(name_lookups, "LOOKUP_SECONDS", 60.0)
        for _ in range(3):
            assert await lookups.addresses("quick.example", user) == ["93.184.215.14"]
        assert asked.count("quick.example") == 1, "it is remembered"
    finally:
        answered.set()
        lookups.close()


async def test_lost_callbacks_are_listed_and_made_again(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answers = [(410, {}, b""), (500, {}, b""), (204, {}, b"")]
    await finished(networks, receiver, 1)
    work = calling(networks, http)
    await call_back(work)
    await finished(networks, receiver, 1)
    await call_back(work)
    await change(networks.request, "UPDATE request_groups SET seen_at = now(), fulfilled_at = now()")
    host = receiver.url.removeprefix("http://")
    async with networks.request.engine.begin() as connection:
        both = await undelivered_callbacks(connection, None, host, False, 10)
        [gone] = await undelivered_callbacks(connection, None, None, True, 10)
        assert len(both) == 2
        assert (gone.reason, gone.host) == ("its receiver answered 410 Gone", host)
        assert await send_callbacks_again(connection, None, uuid4(), None) == 0
        assert await send_callbacks_again(connection, [gone.request_id], None, host) == 1
    opened = "SELECT count(*) FROM request_groups WHERE fulfilled_at IS NULL AND seen_at IS NULL"
    assert await one(networks.request, opened) == 1, "a run is started for it, if none attends"
    assert (await call_back(work)).delivered == 1
    await make_due(networks)
    assert (await call_back(work)).delivered == 1
    async with networks.request.engine.begin() as connection:
        assert not await undelivered_callbacks(connection, None, None, False, 10)


async def test_many_callbacks_of_one_user_take_few_queries(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = []

    async def counted(*arguments: Any) -> list[DueCallback]:
        read.append(arguments)
        return await callbacks_due(*arguments)

    monkeypatch.setattr(callbacks_in_flight, "callbacks_due", counted)
    monkeypatch.setattr(callbacks_in_flight, "READ_SECONDS", 3600.0)
    await due(networks, 160, receiver.url)
    assert (await call_back(calling(networks, http))).delivered == 160
    assert len(read) < 40
