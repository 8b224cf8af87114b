"""Groups of requests to their end: what is overdue is closed, and one run at a time attends to all callbacks."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from activities import fulfilling
from activities.fulfilling import FulfilmentActivities
from fulfilment.callbacks import CallbackSender
from models.outcomes import CallbackOutcome, GroupState
from models.streams import BatchRef
from storage.attendance import CALLBACKS
from storage.notices import FINISHED, NotificationListener, Subscription
from tests.activities.calling import call_back, calling, finish, finished, has_been_asked, submitted
from tests.activities.crossing import change, new_id, submit, table
from tests.activities.residents import attend_briefly, attendant, run_of
from tests.conftest import Networks
from tests.execution.service import Service
from tests.listening import eventually, listening

SEEN = "SELECT seen_at IS NOT NULL, fulfilled_at IS NOT NULL FROM request_groups ORDER BY sequence"


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run makes the callbacks that are due now, and leaves."""
    attend_briefly(monkeypatch)


@pytest.fixture
async def settling(networks: Networks) -> AsyncIterator[FulfilmentActivities]:
    """Calls nobody."""
    side = networks.request
    async with httpx.AsyncClient() as http:
        sender = CallbackSender(side.engine, side.keys, False, 0, http)
        yield FulfilmentActivities(side.engine, sender, NotificationListener())


async def settle(work: FulfilmentActivities, groups: BatchRef) -> GroupState:
    state: GroupState = await run_of(groups.workflow_id("fulfil")).run(work.settle_groups, groups)
    return state


async def test_a_group_says_what_it_waits_for_and_is_fulfilled_when_nothing_is_left(
    networks: Networks, settling: FulfilmentActivities
) -> None:
    ids = [new_id(), new_id()]
    group = await submit(networks, *ids, deadline=100)
    assert await table(networks.request, SEEN) == [(False, False)]
    state = await settle(settling, group)
    assert (state.size, state.outstanding, state.callbacks_wanted, state.is_settled) == (2, 2, 0, False)
    assert state.next_deadline_in is not None
    assert 90 < state.next_deadline_in <= 100
    assert await table(networks.request, SEEN) == [(True, False)]
    await finish(networks, *ids)
    state = await settle(settling, group)
    assert (state.outstanding, state.next_deadline_in, state.is_settled) == (0, None, True)
    assert await table(networks.request, SEEN) == [(True, True)]


async def test_a_group_is_not_settled_before_its_callbacks_are_made(
    networks: Networks, settling: FulfilmentActivities
) -> None:
    key = new_id()
    group = await submit(networks, key, callback="http://hooks.example/")
    await finish(networks, key)
    state = await settle(settling, group)
    assert (state.outstanding, state.callbacks_wanted, state.is_settled) == (0, 1, False)
    assert await table(networks.request, SEEN) == [(True, False)]


async def test_groups_that_came_together_are_settled_together_and_no_others(
    networks: Networks, settling: FulfilmentActivities
) -> None:
    ids = [new_id() for _ in range(4)]
    groups = [await submit(networks, each, deadline=-1) for each in ids]
    await finish(networks, ids[0])
    state = await settle(settling, groups[2].model_copy(update={"first": 1, "records": 3}))
    assert (state.size, state.outstanding) == (3, 0)
    assert await table(networks.request, SEEN) == [(True, True)] * 3 + [(False, False)]
    closed = "SELECT closed FROM requests ORDER BY sequence"
    assert await table(networks.request, closed) == [(None,), ("expired",), ("expired",), (None,)]


async def test_what_is_overdue_expires_and_what_has_a_result_does_not(
    networks: Networks, settling: FulfilmentActivities
) -> None:
    done, open_ = new_id(), new_id()
    group = await submit(networks, done, open_, deadline=-1)
    await finish(networks, done)
    async with listening(networks.request) as listener:
        with listener.subscribe(FINISHED) as finished:
            assert (await settle(settling, group)).outstanding == 0
            await heard(finished)  # by whoever waits for the result, and by whom makes callbacks
    closed = dict(await table(networks.request, "SELECT request_id, closed FROM requests"))
    assert closed == {done: None, open_: "expired"}


async def heard(subscription: Subscription) -> None:
    async with asyncio.timeout(10):
        await subscription._heard.wait()


async def test_a_deadline_that_has_not_come_closes_nothing_and_another_group_is_left_alone(
    networks: Networks, settling: FulfilmentActivities
) -> None:
    group = await submit(networks, new_id(), deadline=1000)
    await submit(networks, new_id(), deadline=-1)
    assert (await settle(settling, group)).outstanding == 1
    assert await table(networks.request, "SELECT closed FROM requests") == [(None,), (None,)]


async def test_whoever_attends_calls_back_each_as_it_finishes_and_ends_when_its_worker_stops(
    networks: Networks, http: httpx.AsyncClient, receiver: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fulfilling, "RENEW_SECONDS", 600.0)  # it looks at a notice only
    first, second, third = await submitted(networks, receiver, 3)
    await finish(networks, first)
    environment = run_of("fulfil-requests-1.1")
    async with listening(networks.request) as listener:
        work = calling(networks, http, listener=listener)
        attending = asyncio.create_task(environment.run(work.make_callbacks))
        for count, key in enumerate((None, second, third)):
            if key is not None:
                await finish(networks, key)
            await eventually(lambda count=count: has_been_asked(receiver, count + 1))  # type: ignore[misc]
        assert not attending.done()
        environment.worker_shutdown()
        outcome = await attending
    assert (outcome.delivered, outcome.unfinished) == (3, True)
    assert [asked.headers["webhook-id"] for asked in receiver.asked] == [f"msg_{key}" for key in (first, second, third)]
    assert await attendant(networks.request, CALLBACKS) == "fulfil-requests-1.1", "its next activity goes on"


@pytest.mark.usefixtures("briefly")
async def test_one_run_at_a_time_makes_callbacks(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    receiver.answers = [(0, {}, b""), (200, {}, b"")]
    await finished(networks, receiver)
    work = calling(networks, http)
    first = asyncio.create_task(call_back(work))
    await eventually(lambda: has_been_asked(receiver, 1))
    assert await call_back(work, "fulfil-requests-1.2") == CallbackOutcome()
    assert len(receiver.asked) == 1, "left to the first"
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await change(networks.request, "UPDATE attendances SET attended_until = now()")
    assert (await call_back(work, "fulfil-requests-1.2")).delivered == 1, "the lease of a dead run lapses"


@pytest.mark.usefixtures("briefly")
async def test_with_nothing_due_any_more_a_run_leaves_and_the_next_one_attends(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    work = calling(networks, http)
    for number in (1, 2):
        await finished(networks, receiver)
        outcome = await call_back(work, f"fulfil-requests-1.{number}")
        assert (outcome.delivered, outcome.unfinished) == (1, False)
        assert await attendant(networks.request, CALLBACKS) is None


@pytest.mark.usefixtures("briefly")
async def test_an_attempt_goes_on_counting_where_the_one_before_was(
    networks: Networks, http: httpx.AsyncClient, receiver: Service
) -> None:
    await finished(networks, receiver)
    earlier = CallbackOutcome(delivered=4, failed_attempts=2).model_dump()
    outcome = await run_of("fulfil-requests-1.1", earlier, attempt=2).run(calling(networks, http).make_callbacks)
    assert outcome == CallbackOutcome(delivered=5, failed_attempts=2)
