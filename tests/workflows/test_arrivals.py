"""What the request network does with what comes in, decision by decision."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowExecutionStatus
from temporalio.testing import WorkflowEnvironment
from workflows.arrivals import ImportBatch

from models.outcomes import ApplyOutcome, CallbackOutcome, GroupState, MaintenanceOutcome
from models.streams import BatchRef, StreamName
from orchestration.search_attributes import search_attributes
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, error, group_state, summaries, timers
from workflows.fulfilment import FulfillRequests
from workflows.timing import CALL_BACK_AGAIN, LOOK_AGAIN

GROUP = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=3, records=3)


@pytest.mark.parametrize("stream", [StreamName.RESULTS, StreamName.SETTINGS, StreamName.HEALTH])
async def test_a_batch_is_applied_and_only_health_is_the_occasion_to_tend_this_side(
    stage: Stage, stream: StreamName
) -> None:
    batch = BatchRef(stream=stream, epoch=2, sequence=5, records=9)
    stage.activities.line_up("tend", MaintenanceOutcome(cache_keys_dropped=4))
    handle = await stage.start(ImportBatch.run, batch)
    assert await handle.result() == ApplyOutcome(batches=1, records=9)
    tends = stream is StreamName.HEALTH
    assert stage.activities.names() == ["apply_batches", *["tend"] * tends]
    assert stage.activities.arguments("apply_batches") == [batch]
    shown = await details(handle)
    assert shown.startswith(f"{stream} 2.5: 1 batch, 9 records applied")
    assert ("4 cache keys dropped" in shown) is tends
    assert (await summaries(handle))[0] == f"{stream} 2.5: 9 records"


async def test_applying_is_tried_again_while_the_database_is_away(stage: Stage) -> None:
    stage.activities.line_up("apply_batches", error("OperationalError"), error("OSError"), ApplyOutcome(batches=1))
    handle = await stage.start(ImportBatch.run, BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=1))
    await handle.result()
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3]


async def test_a_group_that_is_answered_already_costs_one_look(stage: Stage) -> None:
    handle = await stage.start(FulfillRequests.run, GROUP)
    assert await handle.result() == group_state()
    assert stage.activities.names() == ["settle_group"]
    assert stage.activities.arguments("settle_group") == [GROUP]
    assert await timers(handle) == []
    assert await details(handle) == "3 requests: 0 outstanding, 0 callbacks due"
    assert await summaries(handle) == ["what is outstanding"]


async def test_a_signal_has_the_group_looked_at_at_once(stage: Stage, skipping: WorkflowEnvironment) -> None:
    stage.activities.line_up("settle_group", group_state(2), group_state(1), group_state(0))
    with skipping.with_time_skipping_disabled():
        handle = await stage.start(FulfillRequests.run, GROUP)
        for waits in (1, 2):
            await stage.until(handle, timers, [5.0, 30.0][:waits])
            await handle.signal(FulfillRequests.results_arrived)
        assert (await handle.result()).outstanding == 0
    assert stage.activities.names() == ["settle_group"] * 3


async def test_a_signal_that_comes_while_the_group_is_looked_at_is_not_missed(
    stage: Stage, skipping: WorkflowEnvironment
) -> None:
    async def look_while_the_signal_comes(_group: BatchRef) -> GroupState:
        told = stage.client.get_workflow_handle(activity.info().workflow_id or "")
        await told.signal(FulfillRequests.results_arrived)
        return group_state(1)

    stage.activities.line_up("settle_group", look_while_the_signal_comes, group_state(0))
    with skipping.with_time_skipping_disabled():
        handle = await stage.start(FulfillRequests.run, GROUP)
        await handle.result()
    assert await timers(handle) == []


async def test_where_every_signal_is_lost_the_group_looks_for_itself_less_and_less_often(stage: Stage) -> None:
    stage.activities.line_up("settle_group", *[group_state(1)] * 6, group_state(0))
    handle = await stage.start(FulfillRequests.run, GROUP)
    await handle.result()
    assert await timers(handle) == [5, 30, 120, 600, 600, 600]
    assert list(LOOK_AGAIN) == [5, 30, 120, 600]


async def test_a_group_wakes_when_its_earliest_deadline_passes(stage: Stage) -> None:
    looks = [group_state(2, deadline_in=seconds) for seconds in (3.5, 30.5, 100.25, 700.0, -2.0)]
    stage.activities.line_up("settle_group", *looks, group_state(0))
    handle = await stage.start(FulfillRequests.run, GROUP)
    await handle.result()
    assert await timers(handle) == [3.5, 30, 100.25, 600, 0.05]


async def test_hours_until_a_deadline_pass_in_few_looks_and_over_continued_runs(stage: Stage) -> None:
    deadlines: list[datetime] = []

    async def open_until_the_deadline(_group: BatchRef) -> GroupState:
        now = activity.info().scheduled_time
        deadlines.append(deadlines[0] if deadlines else now + timedelta(hours=5))
        left = (deadlines[0] - now).total_seconds()
        return group_state(1, deadline_in=left) if left > 0 else group_state(0)

    stage.activities.line_up("settle_group", open_until_the_deadline)
    first = await stage.start(FulfillRequests.run, GROUP, search_attributes=search_attributes(GROUP))
    assert (await first.result()).outstanding == 0
    ended = stage.client.get_workflow_handle(first.id, run_id=first.result_run_id)
    assert (await ended.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW
    newest = await stage.client.get_workflow_handle(first.id).describe()
    assert newest.status is WorkflowExecutionStatus.COMPLETED
    assert newest.close_time is not None
    assert newest.close_time >= deadlines[0]
    assert len(stage.activities.calls) < 60
    found = newest.typed_search_attributes
    assert all(found.get(pair.key) == pair.value for pair in search_attributes(GROUP))


def outcome(**counts: int) -> CallbackOutcome:
    return CallbackOutcome(**counts)


async def ran(stage: Stage, states: list[Any], callbacks: list[CallbackOutcome]) -> list[float]:
    """Run a group to its end; gives its timers."""
    stage.activities.line_up("settle_group", *states)
    stage.activities.line_up("call_back", *callbacks)
    handle = await stage.start(FulfillRequests.run, GROUP)
    state = await handle.result()
    assert (state.outstanding, state.callbacks_due) == (0, 0)
    return await timers(handle)


async def test_callbacks_are_made_as_requests_finish_and_the_group_ends_with_the_last(stage: Stage) -> None:
    states = [group_state(2, callbacks_due=1), group_state(2), group_state(0, callbacks_due=2), group_state(0)]
    assert await ran(stage, states, [outcome(delivered=1), outcome(delivered=2)]) == [5]
    assert stage.activities.names() == [
        *("settle_group", "call_back", "settle_group"),
        *("settle_group", "call_back", "settle_group"),
    ]
    assert stage.activities.arguments("call_back") == [GROUP, GROUP]


async def test_callbacks_that_are_not_taken_come_again_ever_more_rarely_until_they_are(stage: Stage) -> None:
    states = [*[group_state(0, callbacks_due=2)] * 9, group_state(0)]
    rounds = [outcome(due=2)] * 8 + [outcome(delivered=2)]
    assert await ran(stage, states, rounds) == [1, 5, 30, 120, 600, 3600, 3600, 3600]
    assert list(CALL_BACK_AGAIN) == [1, 5, 30, 120, 600, 3600]


async def test_callbacks_that_are_given_up_end_the_group(stage: Stage) -> None:
    states = [group_state(0, callbacks_due=2), group_state(0, callbacks_due=1), group_state(0)]
    assert await ran(stage, states, [outcome(due=1, given_up=1), outcome(given_up=1)]) == [1]


async def test_more_callbacks_than_one_round_makes_follow_at_once(stage: Stage) -> None:
    states = [group_state(0, callbacks_due=600), group_state(0, callbacks_due=100), group_state(0)]
    assert await ran(stage, states, [outcome(delivered=500), outcome(delivered=100)]) == []


async def test_a_round_that_does_nothing_does_not_spin(stage: Stage) -> None:
    states = [group_state(0, callbacks_due=1), group_state(0, callbacks_due=1), group_state(0)]
    assert await ran(stage, states, [outcome(), outcome(delivered=1)]) == [1]


async def test_a_callback_that_nobody_takes_holds_back_no_neighbours_deadline(stage: Stage) -> None:
    states = [
        *(group_state(1, callbacks_due=1, deadline_in=seconds) for seconds in (8.0, 7.0, 2.0)),
        *(group_state(0, callbacks_due=1), group_state(0)),
    ]
    rounds = [outcome(due=1)] * 3 + [outcome(given_up=1)]
    assert await ran(stage, states, rounds) == [1, 5, 2]


async def test_while_callbacks_are_not_taken_the_web_ui_says_so(stage: Stage, skipping: WorkflowEnvironment) -> None:
    stage.activities.line_up("settle_group", group_state(0, callbacks_due=2))
    stage.activities.line_up("call_back", outcome(due=2))
    with skipping.with_time_skipping_disabled():
        handle = await stage.start(FulfillRequests.run, GROUP)
        await stage.until(handle, timers, [1.0])
        assert "2 callbacks not taken, trying again" in await details(handle)
        assert await summaries(handle) == ["what is outstanding", "callbacks"]
    await handle.terminate()
