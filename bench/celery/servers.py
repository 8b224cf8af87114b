"""Starts the Celery build on free ports under Airlock's supervisor, which restarts processes that die."""

import asyncio
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from bench.celery.environment import make_environment
from bench.celery.profiles import Profile
from bench.celery.tables import create_tables
from chaos import running
from chaos.proxy import Harm, Proxy
from configuration.home import CLONE
from embedded import probe
from embedded.databases import READER, Databases, create_databases
from embedded.home import Home
from embedded.ports import free_ports
from embedded.postgres import Postgres
from embedded.process import Process, ProcessSpec
from embedded.redis import find_redis_server, is_worth_showing
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from sample.install import load_airports

EXECUTIONS = 8
"""Processes of the worker: as many concurrent executions as Airlock's worker has by default."""
BROKER = 0
"""Number of the Redis database."""


CADENCES = {name: float(cadence["every"]) for name, cadence in running.CADENCES.items()} | {"pull-requests": 1.0}
"""Seconds: Airlock's under faults, and the pulling of requests, for which Airlock uses a long poll."""


@dataclass(frozen=True)
class Pipeline:
    """The running Celery build; a `Target` of faults."""

    request_url: str
    response_url: str
    api_key: str
    databases: Databases
    redis_port: int
    supervisor: Supervisor
    proxy: Proxy

    def pid(self, name: str) -> int | None:
        return self.supervisor.pids().get(name)

    async def flush(self) -> None:
        await probe.exchange(self.redis_port, b"FLUSHALL\r\nQUIT\r\n")

    def harm(self, harm: Harm) -> AbstractContextManager[None]:
        return self.proxy.harm(harm)


@asynccontextmanager
async def pipeline(
    root: Path, profile: Profile, log: TextIO, cadences: Mapping[str, float] = CADENCES, *, harmed: bool = True
) -> AsyncIterator[Pipeline]:
    """Start everything on free ports, and stop it at the end. Restarts are written to ``log``.

    With ``harmed=False`` the link has no proxy, which is needed for faults only and costs time.
    """
    python = await asyncio.to_thread(make_environment)
    with Home.open(root) as home:
        ports = free_ports("redis", "postgres")
        assert ports.redis is not None
        supervisor, proxy = Supervisor(Terminal(log), home.logs), Proxy("127.0.0.1", ports.request)
        try:
            await proxy.start()
            postgres = Postgres(home, ports.postgres)
            await postgres.initialise()
            await supervisor.start(postgres.spec(2), redis_broker(root, ports.redis, profile.redis_options))
            databases = await create_databases(postgres, home)
            await create_tables(databases.request, databases.response)
            await load_airports(databases.response, READER)
            keys = {"BENCH_API_KEY": secrets.token_urlsafe(24), "BENCH_LINK_KEY": secrets.token_urlsafe(24)}
            await supervisor.start(
                _api("request", ports.request, {**keys, "BENCH_DATABASE": databases.request}),
                _api("response", ports.response, {**keys, "BENCH_DATABASE": databases.response}),
            )
            celery = {
                "BENCH_LINK_KEY": keys["BENCH_LINK_KEY"],
                "BENCH_LINK_URL": proxy.url if harmed else f"http://127.0.0.1:{ports.request}",
                "BENCH_PROFILE": profile.name,
                "BENCH_CADENCES": json.dumps(dict(cadences)),
                "BENCH_BROKER": f"redis://127.0.0.1:{ports.redis}/{BROKER}",
                "BENCH_DATABASE": databases.response,
                "BENCH_SOURCE": databases.reader,
            }
            await supervisor.start(_worker(python, celery, root), _beat(python, celery, root))
            yield Pipeline(
                f"http://127.0.0.1:{ports.request}",
                f"http://127.0.0.1:{ports.response}",
                keys["BENCH_API_KEY"],
                databases,
                ports.redis,
                supervisor,
                proxy,
            )
        finally:
            await supervisor.stop()
            await proxy.stop()


def redis_broker(root: Path, port: int, persistence: Mapping[str, str], name: str = "redis") -> ProcessSpec:
    """The broker. It may persist, unlike Airlock's cache, and allows the scripts that Celery runs in it."""
    directory = root / name
    directory.mkdir(mode=0o700, exist_ok=True)
    options = {"bind": "127.0.0.1", "port": str(port), "dir": str(directory), **persistence}

    async def answers() -> bool:
        return (await probe.exchange(port, b"PING\r\nQUIT\r\n")).startswith(b"+PONG")

    async def ready(_process: Process) -> None:
        await probe.until(answers)

    return ProcessSpec(
        name=name,
        argv=(find_redis_server(), *(part for key, value in options.items() for part in (f"--{key}", value))),
        ready=ready,
        cwd=directory,
        stop_order=2,
        shown=is_worth_showing,
        stops_quietly=True,
    )


def _api(network: str, port: int, environment: Mapping[str, str]) -> ProcessSpec:
    async def ready(_process: Process) -> None:
        await probe.until_ready(port)

    return ProcessSpec(
        name=f"{network}-api",
        argv=(sys.executable, "-P", "-m", f"bench.celery.{network}_api"),
        ready=ready,
        env=_environment({**environment, "BENCH_PORT": str(port)}),
        cwd=CLONE,
        stop_timeout=15.0,
        stop_order=1,
    )


def _worker(python: Path, environment: Mapping[str, str], home: Path) -> ProcessSpec:
    async def ready(process: Process) -> None:
        await process.wait_for_line(" ready.")

    command = ("worker", "--queues", "celery,link", "--concurrency", str(EXECUTIONS), "--loglevel", "INFO")
    return ProcessSpec(
        name="celery-worker",
        argv=(str(python), "-P", "-m", "celery", "-A", "bench.celery.app", *command),
        ready=ready,
        env=_environment(environment),
        cwd=home,
        stop_signal=signal.SIGTERM,  # warm shutdown: tasks under way are finished
        stop_timeout=35.0,
        shown=_is_worth_showing,
    )


def _beat(python: Path, environment: Mapping[str, str], home: Path) -> ProcessSpec:
    """The one and only Beat; its file tells it after a restart what ran when."""

    async def ready(process: Process) -> None:
        await process.wait_for_line("beat: Starting...")

    command = ("--schedule", str(home / "beat-schedule"), "--loglevel", "INFO")
    return ProcessSpec(
        name="beat",
        argv=(str(python), "-P", "-m", "celery", "-A", "bench.celery.app", "beat", *command),
        ready=ready,
        env=_environment(environment),
        cwd=home,
        shown=_is_worth_showing,
    )


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AIRLOCK_", "BENCH_", "CELERY", "CHAOS_"))
    }
    return {**kept, "PYTHONPATH": str(CLONE), "PYTHONUNBUFFERED": "1", **more}


def _is_worth_showing(line: str) -> bool:
    return any(f" {level}/" in line for level in ("WARNING", "ERROR", "CRITICAL"))
