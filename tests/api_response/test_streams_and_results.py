"""Results, streams, and previews that are byte for byte what is sealed."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
import pytest
from temporalio.client import Client
from uuid_utils.compat import uuid7

from activities.monitoring import health_records
from configuration.cadences import DEFAULT_CADENCES
from exchange.transfer.outgoing import append_to_outbox, batch_after
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from execution.execution_store import FinishedResult, store_results
from models.streams import BatchRef, StreamName
from monitoring.measurement_store import settle_alerts, store_measurement
from schedules.sync import sync_schedules
from settings.snapshot import public_records
from storage.database import execute
from tests.api_response.conftest import Api


def finished(number: int, status: str = "completed", kind: str = "airport") -> FinishedResult:
    request_id = uuid7()
    body = orjson.dumps({"request_id": str(request_id), "status": status, "data": [number], "ü": "\u2028"})
    return FinishedResult(request_id, kind, status, None if status == "completed" else "timeout", 1, 1, 1.5, body)


async def crossed(api: Api, ref: BatchRef) -> bytes:
    """What a sealed batch holds, uncompressed."""
    async with api.networks.response.engine.connect() as connection:
        batch = await batch_after(connection, ref.stream, ref.epoch, ref.sequence - 1)
    assert batch is not None
    assert batch.payload is not None
    return b"".join(line + b"\n" for line in unpack(Manifest.model_validate_json(batch.manifest), batch.payload))


async def test_results_are_listed_by_pages_newest_first(api: Api) -> None:
    stored = [finished(number, "failed" if number % 3 == 0 else "completed") for number in range(7)]
    async with api.networks.response.engine.begin() as connection:
        await store_results(connection, stored)
    seen: list[UUID] = []
    cursor: str | None = None
    for _ in range(3):
        page = (await api.http.get("/v1/results", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [UUID(item["request_id"]) for item in page["items"]]
        cursor = page["next_cursor"]
    assert cursor is None
    assert seen == [result.request_id for result in reversed(stored)]
    failed = (await api.http.get("/v1/results", params={"status": "failed", "type": "airport"})).json()
    assert [item["reason"] for item in failed["items"]] == ["timeout"] * 3
    assert (await api.http.get("/v1/results", params={"type": "other"})).json() == {"items": [], "next_cursor": None}


@pytest.mark.parametrize("query", ["cursor=%21%21", "cursor=abc", "limit=0", "limit=501", "status=lost"])
async def test_a_page_that_makes_no_sense_is_refused(api: Api, query: str) -> None:
    answer = await api.http.get(f"/v1/results?{query}")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


async def test_a_result_is_given_byte_for_byte(api: Api) -> None:
    result = finished(1)
    async with api.networks.response.engine.begin() as connection:
        await store_results(connection, [result])
    answer = await api.http.get(f"/v1/results/{result.request_id}")
    assert (answer.content, answer.headers["content-type"]) == (result.body, "application/json")
    assert (await api.http.get(f"/v1/results/{uuid7()}")).status_code == 404


async def test_the_settings_preview_is_what_is_sealed(api: Api) -> None:
    await api.http.put("/v1/settings/banner", json={"value": "ü\u2028", "visibility": "public"})
    seen = await api.http.get("/v1/streams/settings/preview")
    assert seen.headers["content-type"] == "application/x-ndjson"
    async with api.networks.response.engine.begin() as connection:
        sealer = Sealer(api.networks.response.keys, "airlock")
        [ref] = await sealer.seal_snapshot(connection, StreamName.SETTINGS, await public_records(connection))
    assert await crossed(api, ref) == seen.content


@pytest.mark.parametrize("size", [10, 3 * 1024 * 1024], ids=["few and small", "more than one batch"])
async def test_the_results_preview_is_what_the_next_batch_takes(api: Api, size: int) -> None:
    records = [b'{"n":%d,"x":"%s"}' % (number, b"x" * size) for number in range(5)]
    async with api.networks.response.engine.begin() as connection:
        await append_to_outbox(connection, StreamName.RESULTS, records)
    seen = (await api.http.get("/v1/streams/results/preview")).content
    async with api.networks.response.engine.begin() as connection:
        ref = await Sealer(api.networks.response.keys, "airlock").seal_pending(connection, StreamName.RESULTS)
    assert ref is not None
    assert ref.records == (5 if size == 10 else 2)
    assert await crossed(api, ref) == seen


async def test_the_health_preview_is_public_and_what_is_sealed(api: Api) -> None:
    assert (await api.http.get("/v1/streams/health/preview")).content == b""
    assert (await api.http.get("/v1/health")).json() == {"status": "unknown", "alerts": [], "measurement": None}
    now = datetime.now(UTC)
    body = {"measured_at": now.isoformat(), "host": {"name": "inner-host"}, "streams": [], "workers": {"polling": 2}}
    async with api.networks.response.engine.begin() as connection:
        await store_measurement(connection, now, body)
        *_, alerts = await settle_alerts(connection, {"results-old": "the oldest waits for an hour"})
        sealer = Sealer(api.networks.response.keys, "airlock")
        [ref] = await sealer.seal_snapshot(connection, StreamName.HEALTH, health_records(body, alerts))
    seen = (await api.http.get("/v1/streams/health/preview")).content
    assert await crossed(api, ref) == seen
    assert b"inner-host" not in seen
    health = (await api.http.get("/v1/health")).json()
    assert (health["status"], health["measurement"]["host"]) == ("degraded", {"name": "inner-host"})
    assert [alert["name"] for alert in health["alerts"]] == ["results-old"]


async def test_health_is_unknown_when_its_measurement_is_older_than_two_and_a_half_cadences(
    api: Api, client: Client
) -> None:
    await sync_schedules(client, DEFAULT_CADENCES)

    async def measured(seconds: float) -> Any:
        at = datetime.now(UTC) - timedelta(seconds=seconds)
        body = {"measured_at": at.isoformat(), "schedules": dict.fromkeys(DEFAULT_CADENCES)}
        async with api.networks.response.engine.begin() as connection:
            await execute(connection, "DELETE FROM measurements")
            await store_measurement(connection, at, body)
        return (await api.http.get("/v1/health")).json()

    assert (await measured(2.4 * 300))["status"] == "ok"
    assert (await measured(2.6 * 300))["status"] == "unknown"


async def test_a_paused_and_a_deleted_schedule_show_in_health_at_once(api: Api, client: Client) -> None:
    await sync_schedules(client, DEFAULT_CADENCES)
    at = datetime.now(UTC)
    body = {"measured_at": at.isoformat(), "schedules": dict.fromkeys(DEFAULT_CADENCES)}
    async with api.networks.response.engine.begin() as connection:
        await store_measurement(connection, at, body)
        await settle_alerts(connection, {"schedule-paused:export-results": "it was paused, and is no longer"})
    assert (await api.http.get("/v1/health")).json()["status"] == "ok"
    await client.get_schedule_handle("export-settings").pause(note="by a neighbour")
    await client.get_schedule_handle("cache-maintenance").delete()
    health = (await api.http.get("/v1/health")).json()
    assert health["status"] == "degraded"
    assert {alert["name"] for alert in health["alerts"]} == {
        "schedule-paused:export-settings",
        "schedule-missing:cache-maintenance",
    }
    assert "by a neighbour" in health["alerts"][0]["message"] + health["alerts"][1]["message"]


async def test_what_comes_in_has_no_preview(api: Api) -> None:
    assert (await api.http.get("/v1/streams/requests/preview")).status_code == 404
    assert (await api.http.get("/v1/streams/nonsense/preview")).status_code == 422


async def test_streams_tell_their_backlog(api: Api) -> None:
    async with api.networks.response.engine.begin() as connection:
        await append_to_outbox(connection, StreamName.RESULTS, [b"{}", b"{}"])
    streams = {item["stream"]: item for item in (await api.http.get("/v1/streams")).json()["streams"]}
    assert list(streams) == ["settings", "requests", "results", "health"]
    assert streams["results"]["pending_records"] == 2
    assert streams["results"]["oldest_age_seconds"] >= 0
    assert streams["requests"]["direction"] == "in"
    text = (await api.http.get("/metrics")).text
    assert 'airlock_stream_pending_records{direction="out",stream="results"} 2.0' in text


async def test_users_are_listed_with_the_number_of_their_keys(api: Api) -> None:
    users = (await api.http.get("/v1/users")).json()["users"]
    assert [(user["name"], user["role"], user["keys"]) for user in users] == [
        ("olga", "operator", 1),
        ("ulf", "user", 1),
    ]
