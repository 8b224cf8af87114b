"""What the response network sends on a schedule, decision by decision."""

import asyncio
from collections.abc import Awaitable, Callable
from operator import attrgetter

import pytest
from temporalio import activity
from temporalio.client import WorkflowFailureError
from temporalio.exceptions import ActivityError, ApplicationError

from models.outcomes import DrainOutcome, MaintenanceOutcome
from models.streams import StreamName
from orchestration.search_attributes import RECORDS, STREAM
from tests.workflows.conftest import Stage
from tests.workflows.standins import MEASURED, details, error, summaries
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring

NAME = attrgetter("__qualname__")
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
    stage.activities.line_up("drain", DrainOutcome(batches=1, records=7, payload_bytes=512))
    handle = await stage.start(ExportSettings.run)
    assert (await handle.result()).records == 7
    assert stage.activities.names() == ["seal_settings", "drain"]
    assert stage.activities.arguments("drain") == [StreamName.SETTINGS]
    assert await details(handle) == "settings: 1 batch, 7 records, 512 bytes"


async def test_unchanged_settings_are_still_confirmed_by_a_heartbeat(stage: Stage) -> None:
    handle = await stage.start(ExportSettings.run)
    assert (await handle.result()).heartbeat
    assert stage.activities.names() == ["seal_settings", "drain"]
    assert await details(handle) == "settings: nothing new: heartbeat sent"


async def test_results_are_drained_and_the_web_ui_says_what_went(stage: Stage) -> None:
    stage.activities.line_up("drain", DrainOutcome(batches=2, records=5001, payload_bytes=4096))
    handle = await stage.start(ExportResults.run)
    assert (await handle.result()).batches == 2
    assert stage.activities.arguments("drain") == [StreamName.RESULTS]
    assert await details(handle) == "results: 2 batches, 5001 records, 4096 bytes"
    assert await summaries(handle) == ["results: seal and deliver until caught up"]


@pytest.mark.parametrize("away", ["LinkUnavailable", "LinkPaused", "OperationalError"])
async def test_what_passes_by_itself_is_tried_again_until_it_succeeds(stage: Stage, away: str) -> None:
    stage.activities.line_up("drain", error(away), error(away), DrainOutcome(batches=1, records=3))
    handle = await stage.start(ExportResults.run)
    assert (await handle.result()).records == 3
    assert [call.attempt for call in stage.activities.calls] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["Fork", "StreamStopped", "ConfigurationError"])
@pytest.mark.parametrize("run", [ExportSettings.run, ExportResults.run, SystemMonitoring.run], ids=NAME)
async def test_what_an_operator_must_decide_is_not_tried_again_and_the_run_says_so(
    stage: Stage, run: Run, kind: str
) -> None:
    stage.activities.line_up("drain", error(kind, "the histories differ"))
    reason = await reason_of_failure(stage, run)
    assert (reason.type, reason.message) == (kind, "the histories differ")
    assert stage.activities.names().count("drain") == 1


@pytest.mark.parametrize(("run", "sealing"), [(ExportSettings.run, "seal_settings"), (SystemMonitoring.run, "measure")])
async def test_a_snapshot_that_a_stopped_stream_does_not_take_fails_the_run_at_once(
    stage: Stage, run: Run, sealing: str
) -> None:
    stage.activities.line_up(sealing, error("StreamStopped", "stopped by a fork"))
    assert (await reason_of_failure(stage, run)).message == "stopped by a fork"
    assert stage.activities.names() == [sealing]


async def test_monitoring_measures_then_sends_health_and_gives_the_alerts(stage: Stage) -> None:
    stage.activities.line_up("measure", MEASURED.model_copy(update={"raised": ["disk"], "open": ["disk"]}))
    stage.activities.line_up("drain", DrainOutcome(batches=1, records=1, payload_bytes=99))
    handle = await stage.start(SystemMonitoring.run)
    assert (await handle.result()).open == ["disk"]
    assert stage.activities.names() == ["measure", "drain"]
    assert stage.activities.arguments("drain") == [StreamName.HEALTH]
    assert await details(handle) == (
        "alerts: disk; waiting: 3 results; 1 worker, CPU 3 %, memory 41 %, 12.0 GiB of disk free, PostgreSQL 0.9 ms,"
        " Redis 0.3 ms; health: 1 batch, 1 record, 99 bytes"
    )
    assert await summaries(handle) == ["measure, store, judge", "health: seal and deliver until caught up"]


async def test_maintenance_reports_what_it_did(stage: Stage) -> None:
    done = MaintenanceOutcome(cache_keys_dropped=2, batches_emptied=3, rows_deleted={"results": 4, "requests": 0})
    stage.activities.line_up("tend", error("OSError"), done)
    handle = await stage.start(CacheMaintenance.run)
    assert await handle.result() == done
    assert stage.activities.names() == ["tend", "tend"]
    assert await details(handle) == "2 cache keys dropped, 3 batches emptied, 4 results deleted"


async def test_results_that_get_ready_while_others_are_delivered_go_with_the_same_run(stage: Stage) -> None:
    async def deliver_while_more_get_ready(_stream: StreamName) -> DrainOutcome:
        await stage.client.get_workflow_handle(activity.info().workflow_id or "").signal("results_are_ready")
        return DrainOutcome(batches=1, records=10, payload_bytes=100)

    more = DrainOutcome(batches=1, records=5, payload_bytes=50)
    stage.activities.line_up("drain", deliver_while_more_get_ready, more, error("this", "is one delivery too many"))
    handle = await stage.start(ExportResults.run)
    assert (await handle.result()).records == 15
    assert stage.activities.arguments("drain") == [StreamName.RESULTS] * 2
    assert await details(handle) == "results: 2 batches, 15 records, 150 bytes"


async def test_a_run_that_others_may_trigger_outlasts_the_second_that_it_is_named_after(stage: Stage) -> None:
    handle = await stage.start(ExportResults.run)
    await handle.result()
    found = await handle.describe()
    assert found.close_time is not None
    assert (found.close_time - found.start_time).total_seconds() > 1


async def test_what_an_export_delivered_is_found_by_stream_and_records(stage: Stage) -> None:
    stage.activities.line_up("drain", DrainOutcome(batches=1, records=12))
    handle = await stage.start(ExportSettings.run)
    await handle.result()
    found = (await handle.describe()).typed_search_attributes
    assert (found.get(STREAM), found.get(RECORDS)) == ("settings", 12)
