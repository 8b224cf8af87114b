"""Commands against real servers."""

import asyncio
import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from temporalio.client import Client
from typer.testing import Result

from configuration.cadences import DEFAULT_CADENCES
from exchange.transfer.outgoing import append_to_outbox
from models.streams import StreamName
from monitoring.measurement_store import settle_alerts, store_measurement
from people.users import find_caller
from schedules.sync import sync_schedules
from settings.setting_store import put_setting
from storage.database import execute
from tests.cli.conftest import Airlock
from tests.conftest import Networks, Side


async def call(airlock: Airlock, *arguments: str) -> Result:
    """In a thread, since a command brings an event loop of its own."""
    return await asyncio.to_thread(airlock, *arguments)


async def from_json(airlock: Airlock, *arguments: str) -> Any:
    result = await call(airlock, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


async def test_a_new_users_key_is_shown_once_and_works(airlock: Airlock, configured: Networks) -> None:
    created = await call(airlock, "users", "create", "olga", "--role", "operator")
    assert created.exit_code == 0
    key = created.stdout.strip()
    assert key.startswith("alk_")
    assert len(key) == 4 + 43, "32 random bytes"
    more = await from_json(airlock, "users", "add-key", "olga", "--label", "laptop")
    assert list(more) == ["user_id", "name", "key"]
    for each in (key, more["key"]):
        async with configured.response.engine.connect() as connection:
            caller = await find_caller(connection, hashlib.sha256(each.encode()).digest())
        assert caller is not None
        assert (caller.name, caller.role) == ("olga", "operator")
    listed = await from_json(airlock, "users", "list")
    assert [(user["name"], user["keys"]) for user in listed] == [("olga", 2)]
    assert "olga" in (await call(airlock, "users", "list")).stdout


async def test_a_user_is_not_made_twice(airlock: Airlock, configured: Networks) -> None:
    assert (await call(airlock, "users", "create", "olga", "--role", "operator")).exit_code == 0
    again = await call(airlock, "users", "create", "olga", "--role", "user")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "already" in again.stderr
    assert [user["role"] for user in await from_json(airlock, "users", "list")] == ["operator"]
    assert "no user 'ulf'" in (await call(airlock, "users", "add-key", "ulf")).stderr


async def test_preview_prints_the_exact_bytes(airlock: Airlock, configured: Networks) -> None:
    async with configured.response.engine.begin() as connection:
        await put_setting(connection, "banner", "ü\u2028", "public", "test")
        await put_setting(connection, "password", "hidden", "secret", "test")
        await append_to_outbox(connection, StreamName.RESULTS, [b'{"n":1}', b'{"n":2}'])
    settings = await call(airlock, "preview")
    record = '{"kind":"setting","name":"banner","value":"ü\u2028","version":1}\n'
    assert (settings.exit_code, settings.stdout_bytes) == (0, record.encode())
    assert (await call(airlock, "preview", "results")).stdout_bytes == b'{"n":1}\n{"n":2}\n'
    assert (await call(airlock, "preview", "health")).stdout_bytes == b""


async def test_streams_as_table_and_json(airlock: Airlock, configured: Networks) -> None:
    async with configured.response.engine.begin() as connection:
        await append_to_outbox(connection, StreamName.RESULTS, [b"{}"] * 3)
    states = {state["stream"]: state for state in await from_json(airlock, "streams")}
    assert states["results"]["pending_records"] == 3
    assert "results" in (await call(airlock, "streams")).stdout


async def test_schedules_are_operated(airlock: Airlock, configured: Networks, client: Client) -> None:
    assert await from_json(airlock, "schedules", "list") == []
    await sync_schedules(client, DEFAULT_CADENCES)
    assert [view["every"] for view in await from_json(airlock, "schedules", "list")] == [60, 120, 300, 3600]
    paused = await from_json(airlock, "schedules", "pause", "export-results", "--note", "house moves")
    assert (paused["paused"], paused["note"]) == (True, "house moves")
    assert "paused" in (await call(airlock, "schedules", "list")).stdout
    assert (await from_json(airlock, "schedules", "resume", "export-results"))["paused"] is False
    triggered = await call(airlock, "schedules", "trigger", "export-results")
    assert triggered.exit_code == 0
    assert "No run was started: export-results-" in triggered.stdout
    described = (await call(airlock, "schedules", "describe", "export-results")).stdout
    assert "every 2 min" in described
    unknown = await call(airlock, "schedules", "pause", "nightly")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert "there are export-settings, export-results" in unknown.stderr
    times = ("--start", "2026-01-01T00:00:00Z", "--end")
    assert "bad" in (await call(airlock, "schedules", "backfill", "export-results", *times, "bad")).stderr
    done = await call(airlock, "schedules", "backfill", "cache-maintenance", *times, "2026-01-01T02:00:00Z")
    assert done.exit_code == 0, done.stderr


async def test_status_shows_what_there_is_and_says_what_it_cannot_see(
    airlock: Airlock, configured: Networks, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await sync_schedules(client, DEFAULT_CADENCES)
    found = await from_json(airlock, "status")
    assert list(found) == ["health", "alerts", "streams", "schedules", "workers", "workflows", "errors"]
    assert len(found["streams"]) == len(found["schedules"]) == 4
    monkeypatch.setenv("AIRLOCK_RESPONSE_TEMPORAL_ADDRESS", "127.0.0.1:1")
    partial = await call(airlock, "status")
    assert partial.exit_code == 1
    assert "settings" in partial.stdout
    assert "Temporal at 127.0.0.1:1 does not answer" in partial.stderr


async def measured(side: Side, age: timedelta) -> None:
    """Store a measurement of this age."""
    at = datetime.now(UTC) - age
    async with side.engine.begin() as connection:
        await store_measurement(connection, at, {"measured_at": at.isoformat(), "streams": [], "schedules": {}})


async def test_status_is_unknown_once_its_measurement_is_old_and_a_pause_shows_at_once(
    airlock: Airlock, configured: Networks, client: Client
) -> None:
    await sync_schedules(client, DEFAULT_CADENCES)
    assert (await from_json(airlock, "status"))["health"] == {"status": "unknown", "measured_at": None}
    await measured(configured.response, timedelta(seconds=1))
    assert (await from_json(airlock, "status"))["health"]["status"] == "ok"
    await client.get_schedule_handle("system-monitoring").pause(note="by a neighbour")
    paused = await from_json(airlock, "status")
    assert paused["health"]["status"] == "degraded"
    assert [alert["name"] for alert in paused["alerts"]] == ["schedule-paused:system-monitoring"]
    async with configured.response.engine.begin() as connection:
        await execute(connection, "DELETE FROM measurements")
    await measured(configured.response, timedelta(seconds=2.6 * 300))
    old = await call(airlock, "status")
    assert old.exit_code == 1
    assert "Health: unknown, measured" in old.stdout
    assert old.stdout.splitlines()[0].endswith(" ago")
    assert "look at the schedule system-monitoring" in old.stderr


async def test_status_shows_what_is_wrong_in_each_network_in_red_and_what_to_do(
    airlock: Airlock, configured: Networks, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo = "look at it in the Temporal Web UI"
    for side in (configured.response, configured.request):
        async with side.engine.begin() as connection:
            await settle_alerts(connection, {f"workflow-stuck:{side.network}-run": f"it is stuck: {todo}"})
    here = await from_json(airlock, "status")
    assert [alert["network"] for alert in here["alerts"]] == ["response"], "the other network is not known here"
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", configured.request.url)
    monkeypatch.setenv("AIRLOCK_REQUEST_TEMPORAL_ADDRESS", client.service_client.config.target_host)
    monkeypatch.setenv("AIRLOCK_REQUEST_TEMPORAL_NAMESPACE", client.namespace)
    both = await from_json(airlock, "status")
    assert [(alert["network"], alert["name"]) for alert in both["alerts"]] == [
        ("response", "workflow-stuck:response-run"),
        ("request", "workflow-stuck:request-run"),
    ]
    plain = (await call(airlock, "status")).stdout
    assert todo in plain
    assert "\x1b" not in plain
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "200")
    coloured = (await call(airlock, "status")).stdout
    assert [line for line in coloured.splitlines() if "\x1b[1;31m" in line and todo in line]


async def test_migrate_and_a_database_without_tables(
    airlock: Airlock, configured: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await call(airlock, "migrate", "response")).exit_code == 0, "again does nothing"
    name = configured.response.url.rsplit("/", 1)[1] + "_empty"
    await configured.servers.administer(f"CREATE DATABASE {name} OWNER airlock_response STRATEGY file_copy")
    try:
        monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", configured.response.url.rsplit("/", 1)[0] + f"/{name}")
        empty = await call(airlock, "users", "list")
        assert empty.exit_code == 2
        assert "run: airlock migrate response" in empty.stderr
        assert (await call(airlock, "migrate", "response")).exit_code == 0
        assert (await call(airlock, "users", "list")).exit_code == 0
        connection = await asyncpg.connect(configured.response.url.rsplit("/", 1)[0] + f"/{name}")
        await connection.execute("DELETE FROM schema_versions")
        await connection.execute("INSERT INTO schema_versions VALUES ('exchange_0007'), ('response_0003')")
        await connection.close()
        old = await call(airlock, "migrate", "response")
        assert (old.exit_code, "made by an unreleased version" in old.stderr) == (2, True)
        monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", configured.response.url + "_gone")
        assert "has no database" in (await call(airlock, "users", "list")).stderr
        wrong = configured.response.url.replace("airlock_response:", "airlock_response:x")
        monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", wrong)
        refused = await call(airlock, "users", "list")
        assert (refused.exit_code, "refuses the login" in refused.stderr) == (2, True)
    finally:
        await configured.servers.administer(f"DROP DATABASE {name} WITH (FORCE)")
