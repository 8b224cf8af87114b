"""The rival in draining: the Celery build's `export_results`, on Airlock's stage, with databases of its own.

It is tuned for the job: pages of 1,000 results, one export per core at a time, no record of arrivals, no persistence in
Redis, which is only the broker. A result is sent, stored once and flagged, with an HMAC over each page.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from bench.backlog import bodies, mixed_rows
from bench.celery.environment import make_environment
from bench.celery.servers import CADENCES, redis_broker
from bench.celery.tables import create_tables
from bench.stage import APIS_STOP, WORKERS_STOP, Stage
from configuration.home import CLONE
from embedded import probe
from embedded.ports import free_port
from embedded.process import Process, ProcessSpec
from sample.install import load_airports

PAGE = 1000
EXPORTS = 2
"""Concurrent export tasks: each locks the rows that it takes."""
VISIBILITY_SECONDS = 20
"""The broker's visibility timeout where a takeover is measured; Celery's default is an hour."""
BROKER = 7
"""Number of the Redis database."""
DATABASES = {"request": "bench_request", "response": "bench_response"}

_CALL = """
import sys
from bench.celery.tasks import export_results
print("ready", flush=True)
for count in sys.stdin:
    for _ in range(int(count)):
        export_results.delay()
"""
_ASKED = "INSERT INTO requests (request_id, type, params) SELECT request_id, 'airport', '{}' FROM (%s) AS made"
_EXECUTED = "INSERT INTO results (request_id, body) SELECT request_id, convert_from(body, 'UTF8') FROM (%s) AS made"


class CeleryDrain:
    """The running processes, and the process that sends the tasks."""

    def __init__(self, stage: Stage, urls: Mapping[str, str], caller: asyncio.subprocess.Process) -> None:
        self._stage = stage
        self._urls = urls
        self._caller = caller

    async def fill(self, count: int) -> None:
        """Replace all rows by ``count`` results that are executed and not exported."""
        for network, statements in (("request", (_ASKED,)), ("response", (_ASKED, _EXECUTED))):
            connection = await asyncpg.connect(self._urls[network])
            try:
                await connection.execute("TRUNCATE requests, results")
                for statement in statements:
                    await connection.execute(statement % bodies(), 0, count - 1)
                await connection.execute("VACUUM (ANALYZE)")
            finally:
                await connection.close()
        await self._stage.checkpoint()

    def workers(self) -> dict[str, int]:
        """Name and pid of each worker."""
        return self._stage.pids("celery-worker")

    async def begin(self, exports: int = EXPORTS) -> None:
        """Send ``exports`` tasks."""
        assert self._caller.stdin is not None, "the caller is started with a pipe"
        self._caller.stdin.write(f"{exports}\n".encode())
        await self._caller.stdin.drain()

    async def connect(self, network: str) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection to the network's database."""
        return await asyncpg.connect(self._urls[network])


@asynccontextmanager
async def celery_drain(stage: Stage, workers: int = 1, visibility: int | None = None) -> AsyncIterator[CeleryDrain]:
    """Start it on the stage, with which it ends. ``visibility``: seconds of the broker's visibility timeout, by default
    Celery's own.
    """
    python = await asyncio.to_thread(make_environment)
    urls = await _databases(stage)
    port, broker = free_port(), free_port()
    told = {
        "BENCH_LINK_KEY": "drain",
        "BENCH_API_KEY": "drain",
        "BENCH_PORT": str(port),
        "BENCH_LINK_URL": f"http://127.0.0.1:{port}",
        "BENCH_PROFILE": "documented",
        "BENCH_CADENCES": json.dumps(dict.fromkeys(CADENCES, 3600.0)),
        "BENCH_BROKER": f"redis://127.0.0.1:{broker}/{BROKER}",
        "BENCH_SOURCE": urls["response"],
        "BENCH_PAGE": str(PAGE),
        "BENCH_WATCHED": "no",
        "PYTHONPATH": str(CLONE),
        "PYTHONUNBUFFERED": "1",
    } | ({} if visibility is None else {"BENCH_VISIBILITY": str(visibility)})
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "BENCH_", "CELERY"))}
    keeps_nothing = {"save": "", "appendonly": "no", "maxmemory-policy": "noeviction"}
    await stage.supervisor.start(redis_broker(stage.home.root, broker, keeps_nothing, "redis-broker"))
    await stage.supervisor.start(
        _api(port, kept | told | {"BENCH_DATABASE": urls["request"]}),
        *(
            _worker(number, python, kept | told | {"BENCH_DATABASE": urls["response"]}, stage.home.root)
            for number in range(1, workers + 1)
        ),
    )
    caller = await asyncio.create_subprocess_exec(
        *(str(python), "-P", "-c", _CALL),
        env=kept | told | {"BENCH_DATABASE": urls["response"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert caller.stdout is not None, "the caller is started with a pipe"
        await caller.stdout.readline()
        yield CeleryDrain(stage, urls, caller)
    finally:
        caller.kill()
        await caller.wait()


async def _databases(stage: Stage) -> dict[str, str]:
    superuser = await asyncpg.connect(stage.postgres.superuser_url)
    try:
        for name in DATABASES.values():
            await superuser.execute(f"CREATE DATABASE {name}")
    finally:
        await superuser.close()
    base = stage.postgres.superuser_url.rsplit("/", 1)[0]
    urls = {network: f"{base}/{name}" for network, name in DATABASES.items()}
    await create_tables(urls["request"], urls["response"])
    for url in urls.values():
        await load_airports(url, "airlock_reader")
        await mixed_rows(url)
    return urls


def _api(port: int, environment: Mapping[str, str]) -> ProcessSpec:
    async def ready(_process: Process) -> None:
        await probe.until_ready(port)

    return ProcessSpec(
        name="celery-request-api",
        argv=(sys.executable, "-P", "-m", "bench.celery.request_api"),
        ready=ready,
        env=environment,
        cwd=CLONE,
        stop_timeout=15.0,
        stop_order=APIS_STOP,
    )


def _worker(number: int, python: Path, environment: Mapping[str, str], directory: Path) -> ProcessSpec:
    async def ready(process: Process) -> None:
        await process.wait_for_line(" ready.")

    named = ("--hostname", f"drain-{number}@%h")
    command = ("worker", *named, "--queues", "link", "--concurrency", str(EXPORTS), "--loglevel", "INFO")
    return ProcessSpec(
        name=f"celery-worker-{number}",
        argv=(str(python), "-P", "-m", "celery", "-A", "bench.celery.app", *command),
        ready=ready,
        env=environment,
        cwd=directory,
        stop_timeout=35.0,
        stop_order=WORKERS_STOP,
    )
