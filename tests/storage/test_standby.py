"""Standing by: heard with each commit, seen by others, one at a time, and nothing is left of who was killed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from storage.standby import Standby

from storage.database import Ask, notify, value
from tests.conftest import Networks
from tests.hearing import hearing, stood_by

NOTICE = "ready results"


@pytest.fixture
async def standby(networks: Networks) -> AsyncIterator[Standby]:
    async with hearing(networks.request, "one") as standby:
        yield standby


async def seen(networks: Networks, notice: str = NOTICE) -> bool:
    return await stood_by(networks.request, notice)


def ask(standby: Standby) -> Ask:
    """By the connection that notices come by."""
    assert standby._ask is not None
    return standby._ask


async def say(networks: Networks, notice: str) -> None:
    async with networks.request.engine.begin() as connection:
        await notify(connection, notice)


async def test_others_see_who_stands_by_for_as_long_as_that_lasts(networks: Networks, standby: Standby) -> None:
    assert not await seen(networks)
    async with standby.by(NOTICE) as post:
        assert post is not None
        assert await seen(networks)
        assert not await seen(networks, "ready results-1")
    assert not await seen(networks)


async def test_a_notice_is_heard_by_whoever_stands_by_for_it_alone(networks: Networks, standby: Standby) -> None:
    async with standby.by(NOTICE) as post, standby.by("received results") as other:
        assert post is not None
        assert other is not None
        await say(networks, NOTICE)
        async with asyncio.timeout(10):
            await post.said.wait()
        assert not other.said.is_set()
        assert not post.is_lost


async def test_one_at_a_time_stands_by_in_a_process_and_another_process_may_too(
    networks: Networks, standby: Standby
) -> None:
    async with hearing(networks.request, "another") as another, another.by(NOTICE) as other:
        async with standby.by(NOTICE) as post, standby.by(NOTICE) as second:
            assert post is not None
            assert second is None
            await say(networks, NOTICE)
            async with asyncio.timeout(10):
                for each in (post, other):
                    assert each is not None
                    await each.said.wait()
        assert await seen(networks)
    assert not await seen(networks)


async def test_what_was_cancelled_stands_by_no_longer(networks: Networks, standby: Standby) -> None:
    stands = asyncio.Event()

    async def for_ever() -> None:
        async with standby.by(NOTICE):
            stands.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(for_ever())
    await stands.wait()
    slow: asyncio.Task[None] = asyncio.create_task(ask(standby)("SELECT pg_sleep(0.3)"))
    await asyncio.sleep(0)
    for _ in range(2):  # the second while it waits to say that it stands by no longer
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    await slow
    await ask(standby)("SELECT 1")
    assert not await seen(networks)


async def test_with_its_connection_goes_what_others_see_and_it_is_told(networks: Networks, standby: Standby) -> None:
    async with standby.by(NOTICE) as post:
        assert post is not None
        async with networks.request.engine.connect() as connection:
            await value(
                connection,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'one-listen'",
            )
        async with asyncio.timeout(10):
            await post.said.wait()
        assert post.is_lost
        assert not await seen(networks)


async def test_where_no_notice_would_be_heard_nobody_stands_by(networks: Networks) -> None:
    async with Standby().by(NOTICE) as post:
        assert post is None
    assert not await seen(networks)


async def test_many_stand_by_over_one_connection(networks: Networks, standby: Standby) -> None:
    notices = [f"ready results-{number}" for number in range(64)]
    async with AsyncExitStack() as stack:
        posts = await asyncio.gather(*(stack.enter_async_context(standby.by(notice)) for notice in notices))
        assert None not in posts
        assert [await seen(networks, notice) for notice in notices] == [True] * 64
    assert not await seen(networks, notices[0])
