"""The real PostgreSQL, Temporal and Redis as supervised children."""

import asyncio
import json
import os
import shutil
import signal
import stat
from pathlib import Path

import asyncpg
import pytest

from embedded import probe
from embedded.databases import create_databases
from embedded.errors import CannotStart
from embedded.home import Home
from embedded.ports import free_port
from embedded.postgres import Postgres
from embedded.redis import redis_spec
from embedded.supervisor import Supervisor
from embedded.temporal import RETENTION, temporal_spec
from embedded.terminal import Terminal
from tests.embedded.waiting import Screen, eventually


async def test_postgres_keeps_what_was_committed_through_kill_9(
    home: Home, supervisor: Supervisor, screen: Screen
) -> None:
    postgres = Postgres(home, free_port())
    await postgres.initialise()
    await supervisor.start(postgres.spec())
    url = (await create_databases(postgres, home)).request
    connection = await asyncpg.connect(url)
    await connection.execute("create table kept (n int)")
    await connection.execute("insert into kept values (7)")
    busy = asyncio.create_task(connection.execute("select pg_sleep(600)"))  # a backend that does not look up
    os.kill(supervisor.pids()["postgres"], signal.SIGKILL)
    await screen.shows("killed by SIGKILL, starting again")
    await eventually(lambda: screen.getvalue().count("ready in") == 2, 40)
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await busy
    again = await asyncpg.connect(url)
    assert await again.fetchval("select n from kept") == 7
    await again.close()


async def test_each_network_has_a_database_of_its_own_and_the_reader_only_connects(
    home: Home, supervisor: Supervisor
) -> None:
    postgres = Postgres(home, free_port())
    await postgres.initialise()
    await supervisor.start(postgres.spec())
    databases = await create_databases(postgres, home)
    assert await create_databases(postgres, home) == databases
    owner = await asyncpg.connect(databases.response)
    await owner.execute("create table private (n int)")
    reader = await asyncpg.connect(databases.reader)
    for forbidden in ("select * from private", "select * from public.private", "create temp table mine (n int)"):
        with pytest.raises(asyncpg.PostgresError):
            await reader.execute(forbidden)
    assert await reader.fetchval("show transaction_read_only") == "on"
    await owner.close()
    await reader.close()
    strangers = databases.request.removesuffix("/airlock_request") + "/airlock_response"
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(strangers)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(databases.request.replace(home.secret("airlock_request-password"), "guess"))


async def test_a_directory_that_is_no_database_or_of_another_version_is_refused(home: Home) -> None:
    postgres = Postgres(home, free_port())
    postgres.data.mkdir()
    with pytest.raises(CannotStart, match="is no PostgreSQL data directory"):
        await postgres.initialise()
    (postgres.data / "PG_VERSION").write_text("12\n")
    with pytest.raises(CannotStart, match="was made by PostgreSQL 12"):
        await postgres.initialise()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make what others may not enter")
async def test_as_root_postgres_runs_below_a_directory_that_only_root_may_enter(
    tmp_path: Path, supervisor: Supervisor
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with Home.open(closed / "home") as home:
        postgres = Postgres(home, free_port())
        await postgres.initialise()
        await supervisor.start(postgres.spec())
        status = await asyncio.to_thread(Path(f"/proc/{supervisor.pids()['postgres']}/status").read_text)
        assert "Uid:\t0" not in status
        assert "CapEff:\t0000000000000004" in status  # DAC_READ_SEARCH and nothing else
        assert stat.S_IMODE(await asyncio.to_thread(lambda: closed.stat().st_mode)) == 0o700
        await supervisor.stop()


async def test_temporal_starts_again_on_the_same_file(tmp_path: Path, screen: Screen) -> None:
    attributes: list[object] = []
    for _ in range(2):
        supervisor = Supervisor(Terminal(screen), tmp_path / "logs")
        port, ui_port, http_port = free_port(), free_port(), free_port()
        try:
            await supervisor.start(temporal_spec(tmp_path, port, ui_port, http_port))
            for namespace in ("request", "response"):
                status, body = await probe.http(http_port, "GET", f"/api/v1/namespaces/{namespace}")
                described = json.loads(body)
                assert status == 200
                assert described["config"]["workflowExecutionRetentionTtl"] == f"{RETENTION}s"
                attributes.append(described["namespaceInfo"]["id"])
                status, body = await probe.http(http_port, "GET", f"/api/v1/namespaces/{namespace}/search-attributes")
                assert json.loads(body)["customAttributes"]["AirlockStream"] == "INDEXED_VALUE_TYPE_KEYWORD"
        finally:
            await supervisor.stop()
    assert attributes[:2] == attributes[2:]  # the same namespaces, not new ones of the same name


async def test_redis_answers_and_keeps_nothing_on_disk(tmp_path: Path, supervisor: Supervisor) -> None:
    port = free_port()
    await supervisor.start(redis_spec(tmp_path, port))
    answer = await probe.exchange(port, b"SET a 1\r\nCONFIG GET maxmemory-policy\r\nCONFIG GET save\r\nQUIT\r\n")
    assert b"allkeys-lru" in answer
    await supervisor.stop()
    assert list((tmp_path / "redis").iterdir()) == []


async def test_a_missing_redis_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(CannotStart, match="apt install redis-server"):
        redis_spec(tmp_path, 6380)
