"""What the request network does with a batch that comes in, decision by decision."""

import pytest
from temporalio.client import WorkflowExecutionStatus

from models.outcomes import ApplyOutcome, MaintenanceOutcome
from models.streams import BatchRef, StreamName
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, error, summaries
from workflows.importing import ImportBatch

RESULTS = BatchRef(stream=StreamName.RESULTS, epoch=2, sequence=5, records=9)


@pytest.mark.parametrize("stream", [StreamName.RESULTS, StreamName.SETTINGS, StreamName.HEALTH])
async def test_a_batch_is_applied_and_only_health_is_the_occasion_to_tend_this_side(
    stage: Stage, stream: StreamName
) -> None:
    batch = RESULTS.model_copy(update={"stream": stream})
    stage.activities.line_up("tend", MaintenanceOutcome(cache_keys_dropped=4))
    handle = await stage.start(ImportBatch.run, batch)
    assert await handle.result() == ApplyOutcome(batches=1, records=9)
    tends = stream is StreamName.HEALTH
    assert stage.activities.names() == ["apply_and_attend", *["tend"] * tends]
    assert stage.activities.arguments("apply_and_attend") == [batch]
    shown = await details(handle)
    assert shown.startswith(f"{stream} 2.5")
    assert "1 batch, 9 records applied" in shown
    assert ("4 cache keys dropped" in shown) is tends
    assert (await summaries(handle))[0] == f"apply {stream} 2.5, and what follows it"


async def test_applying_is_tried_again_while_the_database_is_away(stage: Stage) -> None:
    stage.activities.line_up("apply_and_attend", error("OperationalError"), error("OSError"), ApplyOutcome(batches=1))
    handle = await stage.start(ImportBatch.run, RESULTS)
    await handle.result()
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3]


async def test_a_run_attends_to_its_stream_round_after_round_and_counts_on(stage: Stage) -> None:
    rounds = [ApplyOutcome(batches=2, records=3, unfinished=True), ApplyOutcome(batches=1, records=1)]
    stage.activities.line_up("apply_and_attend", *rounds)
    handle = await stage.start(ImportBatch.run, RESULTS)
    assert await handle.result() == ApplyOutcome(batches=3, records=4)
    assert stage.activities.arguments("apply_and_attend") == [RESULTS] * 2
    assert await details(handle) == (
        "results 2.5 and what followed: 3 batches, 4 records applied, 0 superseded, 0 quarantined"
    )


async def test_a_long_history_is_continued_as_new(stage: Stage) -> None:
    rounds = 50
    stage.activities.line_up("apply_and_attend", *[ApplyOutcome(unfinished=True)] * rounds, ApplyOutcome(batches=1))
    first = await stage.start(ImportBatch.run, RESULTS)
    assert (await first.result()).batches == 1
    assert stage.activities.arguments("apply_and_attend") == [RESULTS] * (rounds + 1)
    run = await stage.client.get_workflow_handle(first.id, run_id=first.result_run_id).describe()
    assert run.status is WorkflowExecutionStatus.CONTINUED_AS_NEW
