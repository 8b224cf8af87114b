"""What the response network sends on a schedule, decision by decision."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from models.outcomes import DrainOutcome, MaintenanceOutcome
from models.streams import StreamName
from orchestration.search_attributes import RECORDS
from tests.workflows.conftest import Stage
from tests.workflows.standins import MEASURED, details, error, summaries
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring

FOLLOWING = "deliver_until_next_tick"
Run = Callable[..., Awaitable[object]]


async def reason_of_failure(stage: Stage, run: Run) -> ApplicationError:
    """The error of the activity that ended the run."""
    handle = await stage.start(run)
    with pytest.raises(WorkflowFailureError) as failed:
        async with asyncio.timeout(20):
            await handle.result()
    assert isinstance(failed.value.cause, ActivityError)
    assert isinstance(failed.value.cause.cause, ApplicationError)
    return failed.value.cause.cause


async def test_settings_are_sealed_before_they_are_delivered(stage: Stage) -> None:
    stage.activities.line_up("seal_settings", 1)
    stage.activities.line_up("deliver", DrainOutcome(batches=1, records=7, payload_bytes=512))
    handle = await stage.start(ExportSettings.run)
    assert (await handle.result()).records == 7
    assert stage.activities.names() == ["seal_settings", "deliver"]
    assert stage.activities.arguments("deliver") == [StreamName.SETTINGS]
    assert await details(handle) == "settings: 1 batch, 7 records, 512 bytes"


async def test_unchanged_settings_are_still_confirmed_by_a_heartbeat(stage: Stage) -> None:
    handle = await stage.start(ExportSettings.run)
    assert (await handle.result()).heartbeat
    assert stage.activities.names() == ["seal_settings", "deliver"]
    assert await details(handle) == "settings: nothing new: heartbeat sent"


async def test_results_are_delivered_for_as_long_as_the_run_owns_its_interval(stage: Stage) -> None:
    rounds = [
        DrainOutcome(batches=2, records=5001, payload_bytes=4096, unfinished=True),
        DrainOutcome(unfinished=True),
        DrainOutcome(batches=1, records=4, payload_bytes=100),
    ]
    stage.activities.line_up(FOLLOWING, *rounds)
    handle = await stage.start(ExportResults.run)
    assert (await handle.result()).records == 5005
    assert stage.activities.arguments(FOLLOWING) == [StreamName.RESULTS] * 3
    assert await details(handle) == "results: 3 batches, 5005 records, 4196 bytes"
    assert await summaries(handle) == ["seal and deliver what is ready, and what becomes ready"] * 3


async def test_an_interval_of_a_month_is_continued_as_new_and_counts_on(stage: Stage) -> None:
    rounds = 50
    stage.activities.line_up(
        FOLLOWING, *[DrainOutcome(batches=1, records=2, unfinished=True)] * rounds, DrainOutcome(batches=1, records=1)
    )
    first = await stage.start(ExportResults.run)
    assert (await first.result()).records == 2 * rounds + 1
    run = await stage.client.get_workflow_handle(first.id, run_id=first.result_run_id).describe()
    assert run.status is WorkflowExecutionStatus.CONTINUED_AS_NEW


@pytest.mark.parametrize("away", ["LinkUnavailable", "LinkPaused", "OperationalError"])
async def test_what_passes_by_itself_is_tried_again_until_it_succeeds(stage: Stage, away: str) -> None:
    stage.activities.line_up(FOLLOWING, error(away), error(away), DrainOutcome(batches=1, records=3))
    handle = await stage.start(ExportResults.run)
    assert (await handle.result()).records == 3
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["Fork", "StreamStopped", "ConfigurationError"])
@pytest.mark.parametrize(
    ("run", "delivering"),
    [(ExportSettings.run, "deliver"), (ExportResults.run, FOLLOWING), (SystemMonitoring.run, "deliver")],
)
async def test_what_an_operator_must_decide_is_not_tried_again_and_the_run_says_so(
    stage: Stage, run: Run, delivering: str, kind: str
) -> None:
    stage.activities.line_up(delivering, error(kind, "the histories differ"))
    reason = await reason_of_failure(stage, run)
    assert (reason.type, reason.message) == (kind, "the histories differ")
    assert stage.activities.names().count(delivering) == 1


@pytest.mark.parametrize(("run", "sealing"), [(ExportSettings.run, "seal_settings"), (SystemMonitoring.run, "measure")])
async def test_a_snapshot_that_a_stopped_stream_does_not_take_fails_the_run_at_once(
    stage: Stage, run: Run, sealing: str
) -> None:
    stage.activities.line_up(sealing, error("StreamStopped", "stopped by a fork"))
    assert (await reason_of_failure(stage, run)).message == "stopped by a fork"
    assert stage.activities.names() == [sealing]


async def test_monitoring_measures_then_sends_health_and_gives_the_alerts(stage: Stage) -> None:
    stage.activities.line_up("measure", MEASURED.model_copy(update={"raised": ["disk"], "open": ["disk"]}))
    stage.activities.line_up("deliver", DrainOutcome(batches=1, records=1, payload_bytes=99))
    handle = await stage.start(SystemMonitoring.run)
    assert (await handle.result()).open == ["disk"]
    assert stage.activities.names() == ["measure", "deliver"]
    assert stage.activities.arguments("deliver") == [StreamName.HEALTH]
    assert await details(handle) == (
        "alerts: disk; waiting: 3 results; 1 worker, CPU 3 %, memory 41 %, 12.0 GiB of disk free, PostgreSQL 0.9 ms,"
        " Redis 0.3 ms; health: 1 batch, 1 record, 99 bytes"
    )
    assert await summaries(handle) == ["measure, store, judge", "deliver this side's health"]


async def test_monitoring_goes_on_while_the_link_is_dead(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.timing.HEALTH_WAITS", timedelta(seconds=1))
    stage.activities.line_up("deliver", error("LinkUnavailable", "nobody answers"))
    handle = await stage.start(SystemMonitoring.run)
    assert await handle.result() == MEASURED
    assert stage.activities.names().count("deliver") > 1
    assert "; health goes with the next run: LinkUnavailable: nobody answers" in await details(handle)


async def test_maintenance_reports_what_it_did(stage: Stage) -> None:
    done = MaintenanceOutcome(cache_keys_dropped=2, batches_emptied=3, rows_deleted={"results": 4, "requests": 0})
    stage.activities.line_up("tend", error("OSError"), done)
    handle = await stage.start(CacheMaintenance.run)
    assert await handle.result() == done
    assert stage.activities.names() == ["tend", "tend"]
    assert await details(handle) == "2 cache keys dropped, 3 batches emptied, 4 results deleted"


async def test_an_export_is_found_by_how_many_records_it_delivered(stage: Stage) -> None:
    stage.activities.line_up("deliver", DrainOutcome(batches=1, records=12))
    handle = await stage.start(ExportSettings.run)
    await handle.result()
    assert (await handle.describe()).typed_search_attributes.get(RECORDS) == 12
