"""After results, a run stands by for more within its own task, for as long as they come."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from workflows.arrivals import ImportBatch

from models.outcomes import BRIEF, STANDS_BY, ApplyOutcome, DrainOutcome, Outcome
from models.streams import BatchRef, StreamName
from tests.workflows.conftest import Stage
from tests.workflows.standins import details, error
from tests.workflows.test_brief import Run, scheduled
from workflows.exports import ExportResults

RESULTS = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=4, records=9)
ALL: list[tuple[Run, list[object], str, str, type[Outcome]]] = [
    (ExportResults.run, [], "drain", "drain_when_ready", DrainOutcome),
    (ImportBatch.run, [RESULTS], "apply_batches", "apply_when_received", ApplyOutcome),
]
EITHER = pytest.mark.parametrize(("run", "arguments", "first", "standing", "of"), ALL, ids=["delivering", "applying"])


async def start(stage: Stage, run: Run, arguments: list[object]) -> WorkflowHandle[Any, Any]:
    return await stage.start(run, *arguments, memo={BRIEF: True, STANDS_BY: True})


@EITHER
async def test_a_run_stands_by_for_as_long_as_results_come(
    stage: Stage, run: Run, arguments: list[object], first: str, standing: str, of: Any
) -> None:
    stage.activities.line_up(first, of(batches=1, records=9))
    stage.activities.line_up(standing, of(batches=2, records=3), of(batches=1, records=1), of())
    handle = await start(stage, run, arguments)
    outcome = await handle.result()
    assert (outcome.batches, outcome.records) == (4, 13)
    assert stage.activities.names() == [first, *[standing] * 3]
    assert stage.activities.arguments(standing) == [StreamName.RESULTS] * 3
    assert await scheduled(handle) == 0
    assert str(outcome) in await details(handle)


@EITHER
async def test_a_run_that_found_nothing_does_not_stand_by(
    stage: Stage, run: Run, arguments: list[object], first: str, standing: str, of: Any
) -> None:
    stage.activities.line_up(first, of())
    await (await start(stage, run, arguments)).result()
    assert stage.activities.names() == [first]


@EITHER
async def test_a_run_of_before_there_was_this_does_not_stand_by(
    stage: Stage, run: Run, arguments: list[object], first: str, standing: str, of: Any
) -> None:
    stage.activities.line_up(first, of(batches=1, records=9))
    await (await stage.start(run, *arguments, memo={BRIEF: True})).result()
    assert standing not in stage.activities.names()


@EITHER
async def test_what_fails_while_a_run_stands_by_is_left_to_the_retries_of_an_activity(
    stage: Stage, run: Run, arguments: list[object], first: str, standing: str, of: Any
) -> None:
    stage.activities.line_up(first, of(batches=1, records=9))
    stage.activities.line_up(standing, error("LinkUnavailable"), error("OSError"), of(batches=1, records=2), of())
    handle = await start(stage, run, arguments)
    assert (await handle.result()).records == 11
    assert [call.attempt for call in stage.activities.calls] == [1, 1, 1, 2, 1]
    assert await scheduled(handle) == 1


@EITHER
async def test_what_lasts_while_a_run_stands_by_is_gone_on_with_by_an_activity(
    stage: Stage, run: Run, arguments: list[object], first: str, standing: str, of: Any
) -> None:
    stage.activities.line_up(first, of(batches=1, records=9))
    stage.activities.line_up(standing, of(batches=1, records=2, more=True), of(batches=1, records=5), of())
    handle = await start(stage, run, arguments)
    assert (await handle.result()).records == 16
    assert await scheduled(handle) == 1


@EITHER
async def test_a_run_stands_by_no_longer_than_the_web_ui_and_its_history_can_bear(
    stage: Stage,
    run: Run,
    arguments: list[object],
    first: str,
    standing: str,
    of: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workflows.brief.STANDS_BY_AT_MOST", timedelta())
    stage.activities.line_up(first, of(batches=1, records=9))
    stage.activities.line_up(standing, of(batches=1, records=2))  # again and again
    async with asyncio.timeout(20):
        assert (await (await start(stage, run, arguments)).result()).records == 9


async def test_what_a_run_is_told_while_it_stands_by_is_not_missed(stage: Stage, skipping: WorkflowEnvironment) -> None:
    async def stand_by_and_hear_nothing(_stream: StreamName) -> DrainOutcome:
        told = stage.client.get_workflow_handle(activity.info().workflow_id or "")
        await told.signal(ExportResults.results_are_ready)
        return DrainOutcome()

    stage.activities.line_up("drain", DrainOutcome(batches=1, records=2), DrainOutcome(batches=1, records=5))
    stage.activities.line_up("drain_when_ready", stand_by_and_hear_nothing, DrainOutcome())
    with skipping.with_time_skipping_disabled():
        handle = await start(stage, ExportResults.run, [])
        assert (await handle.result()).records == 7
