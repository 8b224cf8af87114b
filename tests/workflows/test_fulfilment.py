"""Groups of requests from submission to their end, decision by decision."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from temporalio import activity
from temporalio.client import WorkflowExecutionStatus

from models.looks import LOOKS
from models.outcomes import CallbackOutcome, GroupState
from models.streams import BatchRef, StreamName
from orchestration.search_attributes import search_attributes
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, group_state, summaries, timers
from workflows.fulfilment import FulfillRequests

GROUPS = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=3, records=3)


async def test_a_group_that_is_answered_already_costs_one_look(stage: Stage) -> None:
    handle = await stage.start(FulfillRequests.run, GROUPS)
    assert await handle.result() == group_state()
    assert stage.activities.names() == ["settle_groups"]
    assert stage.activities.arguments("settle_groups") == [GROUPS]
    assert await timers(handle) == []
    assert await details(handle) == "3 requests: 0 outstanding, 0 callbacks to make"
    assert await summaries(handle) == ["close what is overdue, count the rest"]


async def test_an_open_group_is_looked_at_less_and_less_often(stage: Stage) -> None:
    stage.activities.line_up("settle_groups", *[group_state(1)] * 6, group_state(0))
    handle = await stage.start(FulfillRequests.run, GROUPS)
    await handle.result()
    assert await timers(handle) == [10, 20, 40, 60, 60, 60]
    assert list(LOOKS) == [5, 10, 20, 40, 60]


async def test_a_group_is_looked_at_when_its_earliest_deadline_passes(stage: Stage) -> None:
    looks = [group_state(2, deadline_in=seconds) for seconds in (3.5, 30.5, 10.25, 700.0, -2.0)]
    stage.activities.line_up("settle_groups", *looks, group_state(0))
    handle = await stage.start(FulfillRequests.run, GROUPS)
    await handle.result()
    assert await timers(handle) == [3.5, 20, 10.25, 60, 0.05]


async def test_until_a_late_deadline_passes_the_run_is_continued_as_new(stage: Stage) -> None:
    deadlines: list[datetime] = []

    async def open_until_the_deadline(_groups: BatchRef) -> GroupState:
        now = activity.info().scheduled_time
        deadlines.append(deadlines[0] if deadlines else now + timedelta(minutes=30))
        left = (deadlines[0] - now).total_seconds()
        return group_state(1, deadline_in=left) if left > 0 else group_state(0)

    stage.activities.line_up("settle_groups", open_until_the_deadline)
    first = await stage.start(FulfillRequests.run, GROUPS, search_attributes=search_attributes(GROUPS))
    assert (await first.result()).outstanding == 0
    ended = stage.client.get_workflow_handle(first.id, run_id=first.result_run_id)
    assert (await ended.describe()).status is WorkflowExecutionStatus.CONTINUED_AS_NEW
    newest = await stage.client.get_workflow_handle(first.id).describe()
    assert newest.status is WorkflowExecutionStatus.COMPLETED
    assert newest.close_time is not None
    assert newest.close_time >= deadlines[0]
    found = newest.typed_search_attributes
    assert all(found.get(pair.key) == pair.value for pair in search_attributes(GROUPS))


async def ran(stage: Stage, states: list[GroupState], *callbacks: Any) -> GroupState:
    """Run a group to its end."""
    stage.activities.line_up("settle_groups", *states)
    stage.activities.line_up("make_callbacks", *callbacks)
    handle = await stage.start(FulfillRequests.run, GROUPS)
    async with asyncio.timeout(20):
        state: GroupState = await handle.result()
    return state


SOON = 0.05
"""Seconds until the next look: while an activity is under way, no time is skipped."""


async def test_callbacks_are_made_beside_the_looks_and_the_run_ends_after_them(stage: Stage) -> None:
    settled, made = asyncio.Event(), asyncio.Event()

    async def settle(_groups: BatchRef) -> GroupState:
        settled.set()
        return group_state()

    async def make(_nothing: None) -> CallbackOutcome:
        await settled.wait()
        made.set()
        return CallbackOutcome(delivered=3)

    states: list[Any] = [*[group_state(1, callbacks_wanted=1, deadline_in=SOON)] * 3, settle]
    assert await ran(stage, states, make) == group_state()
    assert made.is_set()
    assert stage.activities.names() == ["settle_groups", "make_callbacks", *["settle_groups"] * 3]


async def test_callbacks_go_on_round_after_round(stage: Stage) -> None:
    states = [group_state(0, callbacks_wanted=2), group_state(0)]
    await ran(stage, states, CallbackOutcome(delivered=1, unfinished=True), CallbackOutcome(delivered=1))
    assert stage.activities.names().count("make_callbacks") == 2


async def test_where_another_run_makes_callbacks_it_is_looked_again_whether_it_still_does(stage: Stage) -> None:
    states = [*[group_state(1, callbacks_wanted=1, deadline_in=SOON)] * 2, group_state(0)]
    await ran(stage, states, CallbackOutcome())
    assert stage.activities.names() == [*["settle_groups", "make_callbacks"] * 2, "settle_groups"]
