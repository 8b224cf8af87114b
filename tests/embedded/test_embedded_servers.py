"""The real PostgreSQL, Temporal and Redis as supervised children."""

import asyncio
import importlib.util
import json
import os
import shlex
import shutil
import signal
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
from redis.asyncio import Redis as RedisClient
from redis.exceptions import AuthenticationError, ResponseError
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from configuration.cadences import Cadence
from configuration.redis_url import redis_database
from embedded import probe
from embedded.databases import create_databases
from embedded.errors import CannotStart
from embedded.home import Home
from embedded.ports import Ports, free_port, free_ports
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.temporal import RETENTION, temporal_spec
from embedded.terminal import Terminal
from schedules.definitions import schedule_for
from storage.database import connect, value
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
    ids: list[str] = []
    for _ in range(2):
        supervisor = Supervisor(Terminal(screen), tmp_path / "logs")
        ports = free_ports()
        try:
            await supervisor.start(temporal_spec(tmp_path, ports))
            for namespace in ("request", "response"):
                client = await Client.connect(f"127.0.0.1:{ports.temporal}", namespace=namespace)
                described = await client.workflow_service.describe_namespace(
                    DescribeNamespaceRequest(namespace=namespace)
                )
                assert described.config.workflow_execution_retention_ttl.ToSeconds() == RETENTION
                ids.append(described.namespace_info.id)
                attributes = await client.operator_service.list_search_attributes(
                    ListSearchAttributesRequest(namespace=namespace)
                )
                assert attributes.custom_attributes["AirlockStream"] == IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD
        finally:
            await supervisor.stop()
    assert ids[:2] == ids[2:]  # the same namespaces, not new ones of the same name


def open_ports(pid: int) -> list[int]:
    """The TCP ports on which the process listens."""
    found = psutil.Process(pid).net_connections("tcp")
    return [each.laddr.port for each in found if each.status == psutil.CONN_LISTEN]


HOSTS = ("127.0.0.1", "localhost", "evil.example", "no host", "*", "")
PATH = "namespaces/response/schedules/export-results"
PAUSE = '{"patch": {"pause": "by a web page"}}'


def calls() -> list[bytes]:
    """Reading and pausing a schedule, as a program or a page of another site would try it."""
    made = []
    for prefix in ("/", "/api/v1/"):
        made.append(f"GET {prefix}{PATH} HTTP/1.0\r\n\r\n")
        for host in HOSTS:
            head = f"Host: {host}\r\nOrigin: http://evil.example\r\nConnection: close\r\n"
            made.append(f"GET {prefix}{PATH} HTTP/1.1\r\n{head}\r\n")
            head += f"Content-Type: text/plain\r\nContent-Length: {len(PAUSE)}\r\n"
            made.append(f"POST {prefix}{PATH}/patch HTTP/1.1\r\n{head}\r\n{PAUSE}")
    return [call.encode() for call in made]


async def test_temporals_http_api_answers_nobody(temporal: tuple[Ports, list[int]]) -> None:
    """A page in a browser may post text/plain to any port of this machine. Only the Web UI lets itself be read."""
    ports, listening = temporal
    refused = 0
    for port in listening:
        answers = await asyncio.gather(*(answer(port, call) for call in calls()))
        if port != ports.temporal_ui:
            assert not [each for each in answers if b" 200 OK" in each.partition(b"\r\n")[0]]
            refused += sum(b" 403 Forbidden" in each.partition(b"\r\n")[0] for each in answers)
    assert refused > len(HOSTS)  # the HTTP API is among these ports
    client = await Client.connect(f"127.0.0.1:{ports.temporal}", namespace="response")
    described = await client.get_schedule_handle("export-results").describe()
    assert not described.schedule.state.paused


async def answer(port: int, message: bytes) -> bytes:
    """What a port says to a message; a port that speaks gRPC may keep the connection open, or close it."""
    try:
        return await asyncio.wait_for(probe.exchange(port, message), 1)
    except (TimeoutError, OSError):
        return b""


@pytest.fixture(scope="module")
async def temporal(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Ports, list[int]]]:
    """A Temporal server in which a schedule exists, and all ports on which it listens."""
    root = tmp_path_factory.mktemp("temporal")
    supervisor, ports = Supervisor(Terminal(), root / "logs"), free_ports()
    try:
        await supervisor.start(temporal_spec(root, ports))
        client = await Client.connect(f"127.0.0.1:{ports.temporal}", namespace="response")
        await client.create_schedule("export-results", schedule_for("export-results", Cadence(every=3600)))
        yield ports, open_ports(supervisor.pids()["temporal"])
    finally:
        await supervisor.stop()


async def test_temporals_http_api_is_there_when_its_port_is_asked_for(tmp_path: Path, supervisor: Supervisor) -> None:
    ports = free_ports("temporal_http")
    assert ports.temporal_http is not None
    await supervisor.start(temporal_spec(tmp_path, ports))
    status, body = await probe.http(ports.temporal_http, "GET", "/api/v1/namespaces/response")
    assert (status, json.loads(body)["namespaceInfo"]["name"]) == (200, "response")
    rebound = b"GET /api/v1/namespaces/response HTTP/1.0\r\nHost: evil.example\r\n\r\n"
    assert b"403 Forbidden" in await probe.exchange(ports.temporal_http, rebound)


async def test_redis_answers_on_its_socket_only_and_keeps_no_data_on_disk(home: Home, supervisor: Supervisor) -> None:
    redis = Redis(home)
    await supervisor.start(redis.spec())
    assert redis.tcp_url is None
    assert open_ports(supervisor.pids()["redis"]) == []
    assert stat.S_IMODE(redis.socket.stat().st_mode) == 0o600
    async with RedisClient.from_url(redis.url) as client:
        assert await client.set("a", "1")
        assert (await client.info())["maxmemory_policy"] == "allkeys-lru"
    await supervisor.stop()
    assert [path.name for path in (home.root / "redis").iterdir()] == ["redis.conf"]


DANGEROUS = (
    "MODULE LOAD /tmp/evil.so", "MODULE LIST", "CONFIG GET *", "CONFIG SET dir /tmp", "CONFIG REWRITE", "DEBUG SLEEP 1",
    "SAVE", "BGSAVE", "BGREWRITEAOF", "SHUTDOWN", "REPLICAOF 127.0.0.1 1", "SLAVEOF 127.0.0.1 1", "MONITOR", "ACL LIST",
    "ACL SETUSER default allcommands", "MIGRATE 127.0.0.1 1 a 0 1", "CLIENT KILL TYPE normal", "SYNC",
    "EVAL 'return 1' 0", "FUNCTION LIST", "SCRIPT FLUSH", "LATENCY DOCTOR", "SWAPDB 0 1", "RESTORE a 0 x",
)  # fmt: skip
"""Commands that load code, write files, connect elsewhere, or show or change the server."""


@pytest.mark.parametrize("tcp", [False, True])
async def test_redis_refuses_dangerous_commands(home: Home, supervisor: Supervisor, tcp: bool) -> None:
    redis = Redis(home, free_port() if tcp else None)
    await supervisor.start(redis.spec())
    for url in filter(None, (redis.url, redis.tcp_url)):
        async with RedisClient.from_url(url) as client:
            for command in DANGEROUS:
                with pytest.raises(ResponseError, match=r"no permissions|not allowed"):
                    await client.execute_command(*shlex.split(command))  # type: ignore[no-untyped-call]
            assert await client.flushall()
            assert await client.keys("*") == []


async def test_a_port_of_redis_needs_its_password(home: Home, supervisor: Supervisor) -> None:
    redis = Redis(home, free_port())
    await supervisor.start(redis.spec())
    password = home.secret("redis-password")
    assert redis.tcp_url == f"redis://:{password}@127.0.0.1:{redis.port}"
    async with RedisClient.from_url(f"redis://127.0.0.1:{redis.port}") as stranger:
        with pytest.raises(AuthenticationError):
            await stranger.ping()
    command_line = psutil.Process(supervisor.pids()["redis"]).cmdline()
    assert not [part for part in command_line if password in part]


async def test_sockets_work_below_a_path_that_is_too_long_for_them(tmp_path: Path, supervisor: Supervisor) -> None:
    root = tmp_path / ("a home with a long name, % and " + "ü" * 60)
    with Home.open(root) as home:
        assert (home.sockets.parent, stat.S_IMODE(home.sockets.stat().st_mode)) != (root, 0o700)
        assert (root / "sockets").resolve() == home.sockets
        redis, postgres = Redis(home), Postgres(home)
        await postgres.initialise()
        await supervisor.start(redis.spec(), postgres.spec())
        async with RedisClient.from_url(redis_database(redis.url, 3)) as client:
            assert await client.ping()
        databases = await create_databases(postgres, home)
        engine = connect(databases.request)
        async with engine.connect() as connection:
            assert await value(connection, "SELECT current_user") == "airlock_request"
        await engine.dispose()
        await supervisor.stop()
    assert not home.sockets.exists()
    assert not (root / "sockets").is_symlink()


async def test_sockets_of_a_killed_up_are_removed(tmp_path: Path) -> None:
    root = tmp_path / ("long" * 40)
    killed = Home.open(root)
    assert killed._lock is not None
    os.close(killed._lock)  # as the system does
    with Home.open(root) as home:
        assert home.sockets != killed.sockets
        assert not killed.sockets.exists()


async def test_a_second_up_leaves_the_sockets_of_the_first(home: Home) -> None:
    with pytest.raises(CannotStart, match="Another airlock up"):
        Home.open(home.root)
    assert home.sockets.is_dir()


async def test_postgres_listens_on_its_socket_only_and_wants_a_password(home: Home, supervisor: Supervisor) -> None:
    postgres = Postgres(home)
    await postgres.initialise()
    await supervisor.start(postgres.spec())
    assert open_ports(supervisor.pids()["postgres"]) == []
    assert stat.S_IMODE((home.sockets / "postgres").stat().st_mode) == 0o700
    url = (await create_databases(postgres, home)).request
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SHOW password_encryption") == "scram-sha-256"
    await connection.close()
    superuser = await asyncpg.connect(postgres.superuser_url)
    rules = await superuser.fetch("SELECT auth_method FROM pg_hba_file_rules")
    assert {rule["auth_method"] for rule in rules} == {"scram-sha-256"}
    await superuser.close()
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(url.replace(home.secret("airlock_request-password"), "guess"))


async def test_what_a_statement_did_wrong_is_not_in_postgres_log(
    home: Home, supervisor: Supervisor, screen: Screen, tmp_path: Path
) -> None:
    """Its message quotes the value. Whoever made the statement hears it, and says what kind of error it was."""
    postgres = Postgres(home)
    await postgres.initialise()
    await supervisor.start(postgres.spec())
    connection = await asyncpg.connect(postgres.superuser_url)
    with pytest.raises(asyncpg.InvalidTextRepresentationError, match="a-canary"):
        await connection.execute("SELECT CAST('a-canary' AS integer)")
    await connection.close()
    await supervisor.stop()
    log = (tmp_path / "logs" / "postgres.log").read_text()
    assert "ready to accept connections" in log
    assert "a-canary" not in log + screen.getvalue()


def test_a_missing_redis_is_a_sentence(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    monkeypatch.setattr(shutil, "which", lambda *_args, **_options: None)
    with pytest.raises(CannotStart, match="apt install valkey-server"):
        Redis(home).spec()
