"""Schedules through the API, on a real Temporal and without one."""

from datetime import UTC, datetime, timedelta

from temporalio.client import Client

from api.response import create_app
from configuration.cadences import DEFAULT_CADENCES
from configuration.settings import ResponseSettings
from schedules.sync import sync_schedules
from tests.api_response.conftest import Api, running


async def test_schedules_are_listed_and_operated(api: Api, client: Client) -> None:
    assert (await api.http.get("/v1/schedules")).json() == {"schedules": []}
    await sync_schedules(client, DEFAULT_CADENCES)
    listed = (await api.http.get("/v1/schedules")).json()["schedules"]
    assert [(item["id"], item["every"]) for item in listed] == [
        ("export-settings", 60),
        ("export-results", 120),
        ("system-monitoring", 300),
        ("cache-maintenance", 3600),
    ]
    paused = await api.http.post("/v1/schedules/export-results/pause", json={"note": "house moves"})
    assert (paused.json()["paused"], paused.json()["note"]) == (True, "house moves (paused by olga)")
    resumed = await api.http.post("/v1/schedules/export-results/resume")
    assert (resumed.json()["paused"], resumed.json()["note"]) == (False, "resumed by olga")
    assert (await api.http.post("/v1/schedules/cache-maintenance/trigger")).status_code == 202
    end = datetime.now(UTC) - timedelta(seconds=1)
    times = {"start": (end - timedelta(hours=2)).isoformat(), "end": end.isoformat()}
    assert (await api.http.post("/v1/schedules/cache-maintenance/backfill", json=times)).status_code == 202
    swapped = {"start": times["end"], "end": times["start"]}
    assert (await api.http.post("/v1/schedules/cache-maintenance/backfill", json=swapped)).status_code == 422
    missing = await api.http.get("/v1/schedules/nightly")
    assert missing.status_code == 404
    assert "there are export-settings" in missing.json()["detail"]


async def test_without_temporal_all_else_is_served(api: Api, settings: ResponseSettings) -> None:
    away = settings.model_copy(update={"temporal_address": "127.0.0.1:1"})
    async with running(create_app(away)) as http:
        for path in ("/v1/settings", "/v1/streams", "/v1/health", "/readyz", "/metrics"):
            assert (await http.get(path)).status_code == 200
        answer = await http.get("/v1/schedules")
        assert answer.status_code == 503
        assert "Temporal at 127.0.0.1:1 does not answer" in answer.json()["detail"]
        assert (await http.post("/v1/schedules/export-results/trigger")).status_code == 503
