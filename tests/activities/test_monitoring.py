"""Measuring: what is stored, which alerts are raised and cleared, and what the other network is told."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from temporalio.testing import ActivityEnvironment

from activities.monitoring import MonitoringActivities
from cache.redis_cache import Cache
from configuration.cadences import DEFAULT_CADENCES
from exchange.transfer.outgoing import batch_after, outgoing_stream, stop_outgoing
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from models.outcomes import MonitoringOutcome
from models.streams import StreamName
from settings.setting_store import put_setting
from tests.activities.crossing import LINK, one, table
from tests.conftest import Networks

HIDDEN = "db-host-17"


def orchestration(**paused: str) -> Any:
    """What Temporal would say: its own tests ask a real one."""

    async def say() -> dict[str, Any]:
        return {
            "schedules": {
                name: {
                    "paused": name in paused,
                    "note": paused.get(name, ""),
                    "actions": 1,
                    "skipped_overlap": 0,
                    "missed_catch_up": 0,
                }
                for name in ("export_results",)
            },
            "workers": {"polling": 2, "identities": [f"response-worker 1@{HIDDEN}"]},
        }

    return say


@pytest.fixture
async def no_cache() -> AsyncIterator[Cache]:
    cache = Cache(f"redis://:hunter2@{HIDDEN}.invalid:1")
    yield cache
    await cache.aclose()


async def measure(networks: Networks, cache: Cache, minutes: float = 0, **paused: str) -> MonitoringOutcome:
    side = networks.response
    sealer = Sealer(side.keys, LINK)
    worker = MonitoringActivities(side.engine, cache, sealer, DEFAULT_CADENCES, orchestration(**paused))
    environment = ActivityEnvironment()
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    environment.info = replace(environment.info, scheduled_time=moment)
    outcome: MonitoringOutcome = await environment.run(worker.measure)
    return outcome


async def measurements(networks: Networks) -> list[dict[str, Any]]:
    found = await table(networks.response, "SELECT body::text FROM measurements ORDER BY measured_at")
    return [orjson.loads(body) for (body,) in found]


async def sealed_health(networks: Networks) -> tuple[dict[str, Any], bytes]:
    """The newest health record, and its bytes."""
    async with networks.response.engine.begin() as connection:
        head = await outgoing_stream(connection, StreamName.HEALTH)
        stored = await batch_after(connection, StreamName.HEALTH, head.epoch, head.sequence - 1)
    assert stored is not None
    assert stored.payload is not None
    [record] = unpack(Manifest.model_validate_json(stored.manifest), stored.payload)
    loaded: dict[str, Any] = orjson.loads(record)
    return loaded, stored.manifest + record


async def test_a_measurement_is_stored_with_everything_that_was_measured(networks: Networks, cache: Cache) -> None:
    assert (await measure(networks, cache)).open == []
    [body] = await measurements(networks)
    assert body["measured_at"] == "2026-01-01T00:00:00+00:00"
    assert body["host"]["cpus"] >= 1
    assert body["host"]["disk_free_bytes"] > 0
    assert body["redis"]["available"] is True
    assert body["database"]["size_bytes"] > 0
    assert body["workers"]["polling"] == 2
    assert {state["stream"]: state["direction"] for state in body["streams"]} == {
        "settings": "out",
        "results": "out",
        "health": "out",
        "requests": "in",
    }


async def test_a_second_attempt_replaces_the_first_and_later_ones_are_kept(networks: Networks, cache: Cache) -> None:
    await measure(networks, cache)
    await measure(networks, cache)
    await measure(networks, cache, minutes=5)
    assert len(await measurements(networks)) == 2


async def test_the_backlog_of_a_stream_is_measured(networks: Networks, cache: Cache) -> None:
    side = networks.response
    sealer = Sealer(side.keys, LINK)
    async with side.engine.begin() as connection:
        await sealer.seal(connection, StreamName.RESULTS, [b"{}"] * 3)
        await sealer.enqueue(connection, StreamName.RESULTS, [b"{}"] * 2)
    outcome = await measure(networks, cache)
    [body] = await measurements(networks)
    [results] = [state for state in body["streams"] if state["stream"] == "results"]
    assert (results["sequence"], results["records"], results["pending_records"]) == (1, 3, 2)
    assert (results["in_flight_batches"], results["in_flight_records"]) == (1, 3)
    assert results["oldest_age_seconds"] is not None
    assert outcome.backlog == {"settings": 0, "requests": 0, "results": 5, "health": 0}
    assert outcome.oldest_seconds == results["oldest_age_seconds"]


async def test_a_run_gives_the_key_figures_of_its_measurement(networks: Networks, cache: Cache) -> None:
    outcome = await measure(networks, cache, export_results="moving")
    [body] = await measurements(networks)
    assert (outcome.workers, outcome.open) == (2, ["schedule-paused:export_results"])
    assert (outcome.database_ms, outcome.redis_ms) == (body["database"]["answer_ms"], body["redis"]["answer_ms"])
    assert outcome.disk_free_bytes == body["host"]["disk_free_bytes"]
    assert "alerts: schedule-paused:export_results; waiting: nothing; 2 workers" in str(outcome)


async def test_a_run_says_that_redis_is_away(networks: Networks, no_cache: Cache) -> None:
    outcome = await measure(networks, no_cache)
    assert (outcome.redis_ms, outcome.open) == (None, ["redis-away"])
    assert "Redis away" in str(outcome)


async def test_an_alert_is_raised_once_kept_open_and_cleared_when_its_cause_is_gone(
    networks: Networks, cache: Cache
) -> None:
    name = "schedule-paused:export_results"
    first = await measure(networks, cache, 0, export_results="moving")
    second = await measure(networks, cache, 5, export_results="moving house")
    assert (first.raised, second.raised, second.open) == ([name], [], [name])
    found = await table(networks.response, "SELECT message, cleared_at FROM alerts")
    resume = "to go on: airlock schedules resume export_results"
    assert found == [(f"export_results is paused: moving house; {resume}", None)]
    third = await measure(networks, cache, 10)
    assert (third.cleared, third.open) == ([name], [])
    fourth = await measure(networks, cache, 15, export_results="again")
    assert fourth.raised == [name]
    assert await one(networks.response, "SELECT count(*) FROM alerts WHERE cleared_at IS NULL") == 1


async def test_redis_away_is_an_alert_and_not_a_failed_measurement(networks: Networks, no_cache: Cache) -> None:
    assert (await measure(networks, no_cache)).raised == ["redis-away"]
    [body] = await measurements(networks)
    assert body["redis"]["available"] is False
    assert "hunter2" not in orjson.dumps(body).decode()


async def test_health_is_sealed_and_says_how_this_side_is_and_how_far_its_streams_are(
    networks: Networks, cache: Cache, no_cache: Cache
) -> None:
    await measure(networks, cache)
    well, _ = await sealed_health(networks)
    assert (well["status"], well["alerts"], well["workers"]) == ("ok", [], 2)
    assert {state["stream"] for state in well["streams"]} == {"settings", "results", "health", "requests"}
    await measure(networks, no_cache, 5)
    unwell, _ = await sealed_health(networks)
    assert unwell["status"] == "degraded"
    assert [alert["name"] for alert in unwell["alerts"]] == ["redis-away"]


async def test_health_holds_no_secret_no_host_and_no_message(networks: Networks, no_cache: Cache) -> None:
    async with networks.response.engine.begin() as connection:
        await put_setting(connection, "ledger.token", "hunter2", "secret", "test")
    await measure(networks, no_cache, 0, export_results=f"hunter2 at {HIDDEN}")
    [body] = await measurements(networks)
    assert HIDDEN in orjson.dumps(body).decode(), "stored on this side it may be"
    _, crossed = await sealed_health(networks)
    for hidden in (b"hunter2", HIDDEN.encode(), b"ledger", b"disk", b"memory"):
        assert hidden not in crossed


async def test_a_stopped_health_stream_is_an_alert_and_measuring_goes_on(networks: Networks, cache: Cache) -> None:
    async with networks.response.engine.begin() as connection:
        await outgoing_stream(connection, StreamName.HEALTH)
        await stop_outgoing(connection, StreamName.HEALTH, "forked at 3")
    assert (await measure(networks, cache)).raised == ["stream-stopped:health"]
    assert len(await measurements(networks)) == 1
    assert await one(networks.response, "SELECT count(*) FROM sealed_batches") == 0
