"""Where a request is on its way, what a group waits for, and what closes a request."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import pytest

from exchange.transfer.incoming import lock_applying
from exchange.transfer.outgoing import mark_delivered, mark_sent
from fulfilment.request_store import (
    cancel_request,
    expire_overdue,
    find_request,
    group_state,
    list_requests,
    mark_groups_fulfilled,
    mark_groups_seen,
    unattended_groups,
)
from models.streams import BatchRef, StreamName
from tests.activities.crossing import USER, change, new_id, one, submit, table
from tests.conftest import Networks

REQUESTS = StreamName.REQUESTS


async def status(networks: Networks, key: UUID) -> str:
    """By both ways of asking."""
    async with networks.request.engine.connect() as connection:
        found = await find_request(connection, USER, key)
        assert found is not None
        listed = await list_requests(connection, USER, None, found.status, None, 100)
    assert key in [item.request_id for item in listed]
    return str(found.status)


async def store_result(networks: Networks, key: UUID, outcome: str, sequence: int = 1) -> None:
    await change(
        networks.request,
        "INSERT INTO results VALUES (:key, :user, :status, '{}', 1, :sequence, now())",
        key=key,
        user=USER,
        status=outcome,
        sequence=sequence,
    )


async def test_a_request_is_queued_then_sent_then_executing_then_what_its_result_says(networks: Networks) -> None:
    done, failed = new_id(), new_id()
    group = await submit(networks, done, failed)
    seen = [await status(networks, done)]
    async with networks.request.engine.begin() as connection:
        await mark_sent(connection, REQUESTS, group.epoch, group.sequence)
    seen.append(await status(networks, done))
    async with networks.request.engine.begin() as connection:
        await mark_delivered(connection, REQUESTS, group.epoch, group.sequence, 0, 0, datetime.now(UTC))
    seen.append(await status(networks, done))
    await store_result(networks, done, "completed")
    await store_result(networks, failed, "failed")
    assert [*seen, await status(networks, done)] == ["queued", "sent", "executing", "completed"]
    assert await status(networks, failed) == "failed"


@pytest.mark.parametrize("result", [None, "completed"])
async def test_a_cancelled_or_expired_request_stays_so_whatever_comes_later(
    networks: Networks, result: str | None
) -> None:
    cancelled, expired = new_id(), new_id()
    await submit(networks, cancelled)
    group = await submit(networks, expired, deadline=-1)
    async with networks.request.engine.begin() as connection:
        assert await cancel_request(connection, USER, cancelled)
        assert await expire_overdue(connection, group) == 1
    for key in (cancelled, expired):
        if result:
            await store_result(networks, key, result)
    assert [await status(networks, key) for key in (cancelled, expired)] == ["cancelled", "expired"]


async def test_nobody_cancels_or_sees_anothers_request(networks: Networks) -> None:
    key, stranger = new_id(), new_id()
    await submit(networks, key)
    async with networks.request.engine.begin() as connection:
        assert not await cancel_request(connection, stranger, key)
        assert await find_request(connection, stranger, key) is None
        assert await list_requests(connection, stranger, None, None, None, 10) == []
    assert await status(networks, key) == "queued"


async def test_a_request_is_closed_once(networks: Networks) -> None:
    key = new_id()
    group = await submit(networks, key, deadline=-1)

    async def cancel() -> int:
        async with networks.request.engine.begin() as connection:
            return int(await cancel_request(connection, USER, key))

    async def expire() -> int:
        async with networks.request.engine.begin() as connection:
            return await expire_overdue(connection, group)

    assert sum(await asyncio.gather(cancel(), expire(), cancel(), expire())) == 1


async def test_a_result_and_a_cancellation_at_the_same_time_end_the_request_one_way(networks: Networks) -> None:
    """The one that comes second waits for the first, and sees it."""
    key = new_id()
    await submit(networks, key)
    async with networks.request.engine.begin() as applying:
        await lock_applying(applying, StreamName.RESULTS)

        async def cancel() -> bool:
            async with networks.request.engine.begin() as connection:
                return await cancel_request(connection, USER, key)

        cancelling = asyncio.create_task(cancel())
        async with asyncio.timeout(10):
            while not await one(networks.request, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
                pass
        await store_result(networks, key, "completed")
    assert not await cancelling
    assert await status(networks, key) == "completed"


async def test_a_group_counts_what_is_outstanding_and_which_callbacks_are_not_made(networks: Networks) -> None:
    ids = [new_id() for _ in range(4)]
    group = await submit(networks, *ids, callback="http://hooks.example/", deadline=50)
    await submit(networks, new_id())
    await store_result(networks, ids[0], "completed")
    await store_result(networks, ids[1], "failed")
    await change(networks.request, "UPDATE requests SET callback_at = now() WHERE request_id = :key", key=ids[1])
    async with networks.request.engine.begin() as connection:
        await cancel_request(connection, USER, ids[2])
        state = await group_state(connection, group)
    assert (state.size, state.outstanding, state.callbacks_wanted) == (4, 1, 3)
    assert state.next_deadline_in is not None
    assert 0 < state.next_deadline_in <= 50


async def test_groups_that_no_run_looks_after_are_found_oldest_first_until_one_does(networks: Networks) -> None:
    groups = [await submit(networks, new_id()) for _ in range(4)]

    async def unattended(never_seen: float, not_seen: float) -> list[int]:
        async with networks.request.engine.connect() as connection:
            return [group.sequence for group in await unattended_groups(connection, never_seen, not_seen)]

    assert await unattended(60, 60) == [], "a workflow may be about to start"
    assert await unattended(-1, 60) == [1, 2, 3, 4]
    async with networks.request.engine.begin() as connection:
        await mark_groups_seen(connection, groups[1])
        await mark_groups_fulfilled(connection, groups[3])
    assert await unattended(-1, 60) == [1, 3]
    await change(networks.request, "UPDATE request_groups SET seen_at = now() - interval '61 s' WHERE seen_at < now()")
    assert await unattended(60, 60) == [2], "the run that looked after it was lost"
    async with networks.request.engine.begin() as connection:
        assert await unattended_groups(connection, -1, 60, limit=1) == [groups[0]]
        await mark_groups_seen(connection, groups[1])
    assert await unattended(60, 60) == []


async def test_groups_that_came_together_are_looked_at_as_one(networks: Networks) -> None:
    ids = [new_id() for _ in range(4)]
    first, _, third, _ = [await submit(networks, each, callback="http://hooks.example/", deadline=50) for each in ids]
    await store_result(networks, ids[1], "completed")
    await store_result(networks, ids[3], "completed")
    together = third.model_copy(update={"first": first.sequence, "records": 3})
    async with networks.request.engine.begin() as connection:
        state = await group_state(connection, together)
        await mark_groups_fulfilled(connection, together)
        await change(networks.request, "UPDATE requests SET deadline_at = now() - interval '1 s'")
        assert await expire_overdue(connection, together) == 2
    assert (state.size, state.outstanding, state.callbacks_wanted) == (3, 2, 3)
    assert await table(networks.request, "SELECT sequence FROM request_groups WHERE fulfilled_at IS NULL") == [(4,)]
    async with networks.request.engine.connect() as connection:
        assert await unattended_groups(connection, -1, -1) == [
            BatchRef(stream=REQUESTS, epoch=1, sequence=4, records=1)
        ]


async def test_a_group_is_open_until_it_is_fulfilled_and_the_first_moment_stays(networks: Networks) -> None:
    group = await submit(networks, new_id())
    moments = []
    for _ in range(2):
        async with networks.request.engine.begin() as connection:
            await mark_groups_fulfilled(connection, group)
        moments.append(await table(networks.request, "SELECT fulfilled_at FROM request_groups"))
    assert moments[0] == moments[1]


async def test_requests_are_listed_newest_first_page_by_page_by_status_and_type(networks: Networks) -> None:
    ids = [new_id() for _ in range(5)]
    for key in ids:
        await submit(networks, key)
    await store_result(networks, ids[2], "completed")
    async with networks.request.engine.connect() as connection:
        page = await list_requests(connection, USER, None, None, None, 2)
        rest = await list_requests(connection, USER, page[-1].request_id, None, None, 10)
        done = await list_requests(connection, USER, None, "completed", None, 10)
        none = await list_requests(connection, USER, None, None, "other", 10)
    assert [item.request_id for item in (*page, *rest)] == ids[::-1]
    assert [item.request_id for item in done] == [ids[2]]
    assert none == []
