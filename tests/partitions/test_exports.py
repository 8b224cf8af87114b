"""One run exports all partitions of the results at the same time, and what is wrong with one holds no other back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ActivityError, ApplicationError

from models.outcomes import DrainOutcome
from models.streams import StreamName
from tests.workflows.conftest import LONG_HISTORY, Stage, skipping, stage
from tests.workflows.standins import details, error, summaries
from workflows.exports import ExportResults

__all__ = ["skipping", "stage"]

RESULTS = StreamName.RESULTS
SENT = DrainOutcome(batches=1, records=10, payload_bytes=100)


def by_partition(**drains: Callable[[], Awaitable[DrainOutcome]]) -> Callable[[StreamName], Awaitable[DrainOutcome]]:
    """What draining a partition does; those that are not named send ten records, then nothing new."""
    sent: set[StreamName] = set()

    async def drain(stream: StreamName) -> DrainOutcome:
        special = drains.get(f"of_{stream.number}")
        if special is not None:
            return await special()
        first = stream not in sent
        sent.add(stream)
        return SENT if first else DrainOutcome(heartbeat=True)

    return drain


def seen(event: str) -> Callable[[WorkflowHandle[Any, Any]], Awaitable[bool]]:
    """Whether such an event is in the history, and the workflow has taken it in."""

    async def look(handle: WorkflowHandle[Any, Any]) -> bool:
        kinds = [each.WhichOneof("attributes") or "" async for each in handle.fetch_history_events()]
        places = [place for place, kind in enumerate(kinds) if kind.startswith(event)]
        return bool(places) and "workflow_task_completed_event_attributes" in kinds[places[0] :]

    return look


async def test_all_partitions_are_drained_at_the_same_time_by_an_activity_each(stage: Stage) -> None:
    under_way: set[StreamName] = set()
    all_here = asyncio.Event()

    async def drain(stream: StreamName) -> DrainOutcome:
        under_way.add(stream)
        if len(under_way) == 4:
            all_here.set()
        await asyncio.wait_for(all_here.wait(), 20)
        return SENT

    stage.activities.line_up("drain", drain)
    handle = await stage.start(ExportResults.run, 4)
    outcome = await handle.result()
    assert (outcome.batches, outcome.records) == (4, 40)
    assert sorted(stage.activities.arguments("drain")) == RESULTS.partitions(4)
    assert await details(handle) == "results: 4 batches, 40 records, 400 bytes"
    assert sorted(await summaries(handle)) == sorted(
        f"{stream}: seal and deliver until caught up" for stream in RESULTS.partitions(4)
    )


async def test_a_run_of_several_partitions_outlasts_the_second_that_it_is_named_after(stage: Stage) -> None:
    handle = await stage.start(ExportResults.run, 4)
    await handle.result()
    found = await handle.describe()
    assert found.close_time is not None
    assert (found.close_time - found.start_time).total_seconds() > 1


async def test_a_fork_in_one_partition_ends_that_one_and_fails_the_run_when_the_others_are_done(stage: Stage) -> None:
    others = asyncio.Event()

    async def forked() -> DrainOutcome:
        raise error("Fork", "the histories differ")

    async def slow() -> DrainOutcome:
        await asyncio.wait_for(others.wait(), 20)
        return SENT

    stage.activities.line_up("drain", by_partition(of_2=forked, of_3=slow))
    handle = await stage.start(ExportResults.run, 4)
    await stage.until(handle, seen("activity_task_failed"), True)
    others.set()
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    assert failed.value.cause.cause.message == "the histories differ"
    assert await details(handle) == "results: 3 batches, 30 records, 300 bytes"
    assert stage.activities.arguments("drain").count(RESULTS.at(2)) == 1


async def test_while_one_partition_is_held_up_the_others_deliver_what_gets_ready(stage: Stage) -> None:
    go_on = asyncio.Event()

    async def held_up() -> DrainOutcome:
        await asyncio.wait_for(go_on.wait(), 30)
        return SENT

    stage.activities.line_up("drain", by_partition(of_1=held_up))
    handle = await stage.start(ExportResults.run, 3)
    await stage.until(handle, seen("timer_fired"), True)  # the run has lasted long enough to end
    for times in (5, 7):
        await handle.signal(ExportResults.results_are_ready)
        await stage.activities.called("drain", times)
    go_on.set()
    assert (await handle.result()).records == 40
    drained = stage.activities.arguments("drain")
    assert (drained.count(RESULTS), drained.count(RESULTS.at(2))) == (3, 3)
    assert drained.count(RESULTS.at(1)) == 2, "what was said while it was under way has it look once more"


async def test_a_run_whose_history_is_full_goes_on_as_a_new_one_with_as_many_partitions(stage: Stage) -> None:
    async def always_more(_stream: StreamName) -> DrainOutcome:
        if len(stage.activities.calls) < LONG_HISTORY:
            await handle.signal(ExportResults.results_are_ready)
        return DrainOutcome()

    stage.activities.line_up("drain", always_more)
    handle = stage.client.get_workflow_handle("test-full-history")
    await stage.client.start_workflow(ExportResults.run, 2, id="test-full-history", task_queue=stage.task_queue)
    await handle.result()
    runs = [run async for run in stage.client.list_workflows("WorkflowId = 'test-full-history'")]
    assert len(runs) > 1
    first, last = runs[-1], runs[0]
    assert first.run_id != last.run_id
    history = await stage.client.get_workflow_handle("test-full-history", run_id=last.run_id).fetch_history()
    assert history.events[0].workflow_execution_started_event_attributes.input.payloads[0].data == b"2"
