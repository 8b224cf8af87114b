"""Pulling for ever and executing batch by batch, decision by decision."""

import asyncio

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import CancelledError
from temporalio.testing import WorkflowEnvironment

from models.outcomes import ExecutionOutcome, PullProgress
from models.streams import BatchRef, StreamName
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, error, for_ever, summaries, timers
from workflows.execution import ExecuteRequests
from workflows.pulling import PullRequests
from workflows.timing import WHILE_STOPPED

BATCH = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=7, records=40)


async def test_a_batch_is_executed_and_the_web_ui_says_which_and_how(stage: Stage) -> None:
    stage.activities.line_up("execute_batches", ExecutionOutcome(records=40, by_status={"completed": 38, "failed": 2}))
    handle = await stage.start(ExecuteRequests.run, BATCH)
    assert (await handle.result()).by_status == {"completed": 38, "failed": 2}
    assert stage.activities.arguments("execute_batches") == [BATCH]
    assert await details(handle) == "requests 1.7: 38 completed, 2 failed"
    assert await summaries(handle) == ["requests 1.7: 40 records"]


@pytest.mark.parametrize("kind", ["OperationalError", "Malformed"])
async def test_an_execution_that_fails_is_taken_up_again(stage: Stage, kind: str) -> None:
    stage.activities.line_up("execute_batches", error(kind), error(kind), ExecutionOutcome(records=40))
    handle = await stage.start(ExecuteRequests.run, BATCH)
    assert (await handle.result()).records == 40
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3]


def pulled(batches: int) -> PullProgress:
    return PullProgress(batches=batches, records=10 * batches)


async def test_pulling_goes_on_round_after_round_with_what_it_has_done(stage: Stage) -> None:
    stage.activities.line_up("pull_requests", pulled(1), pulled(4), for_ever)
    handle = await stage.start(PullRequests.run, PullProgress())
    await stage.activities.called("pull_requests", 3)
    assert stage.activities.arguments("pull_requests") == [PullProgress(), pulled(1), pulled(4)]
    assert await details(handle) == "4 batches, 40 records pulled"
    assert (await summaries(handle))[0] == "pull, store, start execution"
    await handle.terminate()


async def test_a_link_that_is_away_is_tried_again_within_the_round(stage: Stage) -> None:
    stage.activities.line_up("pull_requests", error("LinkUnavailable"), error("LinkPaused"), pulled(2), for_ever)
    handle = await stage.start(PullRequests.run, PullProgress())
    await stage.activities.called("pull_requests", 4)
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3, 1]
    assert await timers(handle) == []
    await handle.terminate()


@pytest.mark.parametrize("kind", ["Fork", "StreamStopped", "ConfigurationError"])
async def test_a_stopped_stream_is_looked_at_again_soon_and_keeps_its_progress(stage: Stage, kind: str) -> None:
    stage.activities.line_up("pull_requests", pulled(3), *[error(kind)] * 3, pulled(5), for_ever)
    handle = await stage.start(PullRequests.run, PullProgress())
    await stage.activities.called("pull_requests", 6)
    assert stage.activities.arguments("pull_requests") == [PullProgress(), *[pulled(3)] * 4, pulled(5)]
    assert await timers(handle) == [WHILE_STOPPED.total_seconds()] * 3
    await handle.terminate()


async def test_while_it_is_stopped_the_web_ui_says_why(stage: Stage, skipping: WorkflowEnvironment) -> None:
    stage.activities.line_up("pull_requests", pulled(3), error("StreamStopped", "another history"), for_ever)
    with skipping.with_time_skipping_disabled():
        handle = await stage.start(PullRequests.run, PullProgress())
        await stage.until(handle, timers, [WHILE_STOPPED.total_seconds()])
        assert await details(handle) == "3 batches, 30 records pulled. Stopped: StreamStopped: another history"
    await handle.terminate()


async def test_a_long_history_is_continued_as_new_and_no_progress_is_lost(stage: Stage) -> None:
    rounds = 50
    stage.activities.line_up("pull_requests", *map(pulled, range(1, rounds + 1)), for_ever)
    first = await stage.start(PullRequests.run, PullProgress())
    await stage.activities.called("pull_requests", rounds + 1)
    assert stage.activities.arguments("pull_requests") == [pulled(number) for number in range(rounds + 1)]
    run = await stage.client.get_workflow_handle(first.id, run_id=first.result_run_id).describe()
    assert run.status is WorkflowExecutionStatus.CONTINUED_AS_NEW
    newest = stage.client.get_workflow_handle(first.id)
    assert await details(newest) == f"{pulled(rounds)}"
    await newest.terminate()


async def test_cancelling_ends_the_pulling(stage: Stage) -> None:
    stage.activities.line_up("pull_requests", for_ever)
    handle = await stage.start(PullRequests.run, PullProgress())
    await stage.activities.called("pull_requests", 1)
    await handle.cancel()
    with pytest.raises(WorkflowFailureError) as failed:
        async with asyncio.timeout(20):
            await handle.result()
    assert isinstance(failed.value.cause, CancelledError)
