"""Waiting for notices: many wait over one connection, none is missed, and without the connection they look anyway."""

import asyncio

import pytest

from models.streams import StreamName
from storage import notices
from storage.database import notify, value
from storage.notices import NotificationListener, Subscription, ready
from tests.conftest import Networks
from tests.listening import eventually, listening

NOTICE = ready(StreamName.RESULTS)
LONG = 600.0


async def say(networks: Networks, notice: str) -> None:
    async with networks.request.engine.begin() as connection:
        await notify(connection, notice)


async def woken(*subscriptions: Subscription) -> None:
    """Each returns soon, though it would wait for long."""
    async with asyncio.timeout(10):
        await asyncio.gather(*(each.wait(LONG) for each in subscriptions))


@pytest.fixture(autouse=True)
def _no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks without a notice."""
    monkeypatch.setattr(notices, "LISTENING_POLL_SECONDS", LONG)
    monkeypatch.setattr(notices, "DEAF_POLL_SECONDS", LONG)


async def test_all_who_wait_for_a_notice_hear_it_and_nobody_else_does(networks: Networks) -> None:
    async with listening(networks.request) as listener:
        with listener.subscribe(NOTICE) as one, listener.subscribe(NOTICE) as two, listener.subscribe("other") as other:
            await say(networks, NOTICE)
            await woken(one, two)
            assert not other._heard.is_set()


async def test_a_notice_that_came_before_the_wait_ends_it_at_once_and_counts_once(networks: Networks) -> None:
    async with listening(networks.request) as listener:
        with listener.subscribe(NOTICE) as subscription:
            for _ in range(3):
                await say(networks, NOTICE)
            await say(networks, "the end")
            with listener.subscribe("the end") as end:
                await say(networks, "the end")
                await woken(end)  # notices come in their order: the three are here
            await woken(subscription)
            assert not subscription._heard.is_set()


async def test_without_notices_a_waiter_looks_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = NotificationListener()
    with listener.subscribe(NOTICE) as subscription:
        monkeypatch.setattr(notices, "DEAF_POLL_SECONDS", 0.01)
        await woken(subscription)
        listener.is_listening = True
        monkeypatch.setattr(notices, "LISTENING_POLL_SECONDS", 0.01)
        monkeypatch.setattr(notices, "DEAF_POLL_SECONDS", LONG)
        await woken(subscription)
    assert (notices.DEAF_POLL_SECONDS, subscription._heard.is_set()) == (LONG, False)


async def test_a_waiter_waits_no_longer_than_it_wants() -> None:
    with NotificationListener().subscribe(NOTICE) as subscription:
        async with asyncio.timeout(10):
            await subscription.wait(0.01)


async def test_with_the_connection_lost_and_made_again_everybody_looks_once(networks: Networks) -> None:
    async with listening(networks.request, "losing") as listener:
        with listener.subscribe(NOTICE) as one, listener.subscribe("other") as two:
            waiting = asyncio.create_task(woken(one, two))
            async with networks.request.engine.connect() as connection:
                await value(
                    connection,
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'losing-listen'",
                )
            await waiting

            async def listens() -> bool:
                return listener.is_listening

            await eventually(listens)
            await woken(one, two)  # something may have been said meanwhile
            await say(networks, NOTICE)
            await woken(one)


async def test_who_waits_no_longer_is_forgotten() -> None:
    listener = NotificationListener()
    with listener.subscribe(NOTICE):
        pass
    assert not listener._subscriptions[NOTICE]
