"""Short work is done within the workflow's task; what fails or lasts is left to an activity of its own."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.testing import WorkflowEnvironment
from workflows.arrivals import ImportBatch

from models.outcomes import BRIEF, ApplyOutcome, DrainOutcome, ExecutionOutcome
from models.streams import BatchRef, StreamName
from orchestration.search_attributes import RECORDS
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, error, group_state, summaries, timers
from workflows.execution import ExecuteRequests
from workflows.exports import ExportResults
from workflows.fulfilment import FulfillRequests

Run = Callable[..., Awaitable[object]]
RESULTS = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=4, records=9)
REQUESTS = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=7, records=40)
ALL: list[tuple[Run, list[object], str, Any, Any]] = [
    (ImportBatch.run, [RESULTS], "apply_batches", ApplyOutcome(batches=1, records=9), ApplyOutcome(batches=2)),
    (ExecuteRequests.run, [REQUESTS], "execute_batch", ExecutionOutcome(records=40), ExecutionOutcome(records=40)),
    (ExportResults.run, [], "drain", DrainOutcome(batches=1, records=9), DrainOutcome(batches=2, records=5)),
]
WORK = pytest.mark.parametrize(("run", "arguments", "name", "outcome", "rest"), ALL, ids=[each[2] for each in ALL])


async def scheduled(handle: WorkflowHandle[Any, Any]) -> int:
    """How many activities had a task of their own."""
    return [
        event.HasField("activity_task_scheduled_event_attributes") async for event in handle.fetch_history_events()
    ].count(True)


async def start(stage: Stage, run: Run, arguments: list[object]) -> WorkflowHandle[Any, Any]:
    return await stage.start(run, *arguments, memo={BRIEF: True})


@WORK
async def test_what_is_done_in_short_has_no_task_of_its_own_and_says_what_it_was(
    stage: Stage, run: Run, arguments: list[object], name: str, outcome: Any, rest: Any
) -> None:
    stage.activities.line_up(name, outcome)
    handle = await start(stage, run, arguments)
    assert await handle.result() == outcome
    assert stage.activities.names() == [name]
    assert await scheduled(handle) == 0
    assert len(await summaries(handle)) == 1
    assert str(outcome) in await details(handle)


@WORK
async def test_what_lasts_is_gone_on_with_by_an_activity_and_counted_together(
    stage: Stage, run: Run, arguments: list[object], name: str, outcome: Any, rest: Any
) -> None:
    stage.activities.line_up(name, outcome.model_copy(update={"more": True}), rest)
    handle = await start(stage, run, arguments)
    assert await handle.result() == outcome.plus(rest)
    assert stage.activities.names() == [name] * 2
    assert await scheduled(handle) == 1


async def never_in_short(_argument: Any) -> ApplyOutcome:
    if activity.info().is_local:
        await asyncio.Event().wait()
    return ApplyOutcome(batches=1)


async def test_what_does_not_end_in_short_is_given_up_and_left_to_an_activity(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.brief.BRIEF_AT_MOST", timedelta(seconds=0.2))
    stage.activities.line_up("apply_batches", never_in_short)
    handle = await start(stage, ImportBatch.run, [RESULTS])
    assert (await handle.result()).batches == 1
    assert await scheduled(handle) == 1


@WORK
async def test_what_fails_in_short_is_left_to_the_retries_of_an_activity(
    stage: Stage, run: Run, arguments: list[object], name: str, outcome: Any, rest: Any
) -> None:
    stage.activities.line_up(name, error("OperationalError"), error("OSError"), outcome)
    handle = await start(stage, run, arguments)
    assert await handle.result() == outcome
    assert [call.attempt for call in stage.activities.calls] == [1, 1, 2]
    assert await scheduled(handle) == 1


async def test_a_group_is_looked_at_in_short_and_by_an_activity_where_that_fails(stage: Stage) -> None:
    stage.activities.line_up("settle_group", group_state(1), error("OperationalError"), group_state(0))
    handle = await start(stage, FulfillRequests.run, [REQUESTS])
    assert (await handle.result()).outstanding == 0
    assert stage.activities.names() == ["settle_group"] * 3
    assert await scheduled(handle) == 1


async def test_the_pause_that_an_error_asks_for_is_kept(stage: Stage) -> None:
    paused = ApplicationError("not now", type="LinkPaused", next_retry_delay=timedelta(seconds=17))
    stage.activities.line_up("drain", paused, DrainOutcome(batches=1, records=3))
    handle = await start(stage, ExportResults.run, [])
    assert (await handle.result()).records == 3
    assert (await timers(handle))[0] == 17


@pytest.mark.parametrize("kind", ["Fork", "StreamStopped", "ConfigurationError"])
async def test_what_an_operator_must_decide_ends_the_run_at_once(stage: Stage, kind: str) -> None:
    stage.activities.line_up("drain", error(kind, "the histories differ"))
    handle = await start(stage, ExportResults.run, [])
    with pytest.raises(WorkflowFailureError) as failed:
        await handle.result()
    assert str(failed.value.cause) == f"{kind}: the histories differ"
    assert stage.activities.names() == ["drain"]


async def test_an_export_stays_for_results_that_follow_others(stage: Stage, skipping: WorkflowEnvironment) -> None:
    stage.activities.line_up("drain", DrainOutcome(heartbeat=True), *[DrainOutcome(batches=1, records=2)] * 2)
    with skipping.with_time_skipping_disabled():
        handle = await start(stage, ExportResults.run, [])
        for lasts in ([1.1], [1.1, 5.0], [1.1, 5.0, 5.0]):
            await stage.until(handle, lambda run: rounded(run), lasts)
            if len(lasts) < 3:
                await handle.signal(ExportResults.results_are_ready)
    assert (await handle.result()).records == 4
    assert (await handle.describe()).typed_search_attributes.get(RECORDS) == 4


async def rounded(handle: WorkflowHandle[Any, Any]) -> list[float]:
    return [round(seconds, 1) for seconds in await timers(handle)]
