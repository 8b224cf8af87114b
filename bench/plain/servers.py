"""Starts the plain routes with a PostgreSQL and a Redis of their own, on free ports."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import asyncpg

from bench.plain.api import TABLES
from chaos.running import environment_for
from configuration.home import CLONE
from embedded import probe
from embedded.databases import READER, Databases, create_databases
from embedded.home import Home
from embedded.ports import free_ports
from embedded.postgres import Postgres
from embedded.process import Process, ProcessSpec
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from sample.install import load_airports

STORES_STOP = 1


@dataclass(frozen=True)
class Plain:
    """Addresses of the plain routes and their servers."""

    port: int
    databases: Databases
    redis_url: str


@asynccontextmanager
async def plain_routes(root: Path, log: TextIO) -> AsyncIterator[Plain]:
    """Start everything, and stop it at the end."""
    with Home.open(root) as home:
        ports = free_ports("postgres")
        supervisor = Supervisor(Terminal(log), home.logs)
        try:
            postgres, redis = Postgres(home, ports.postgres), Redis(home)
            await postgres.initialise()
            await supervisor.start(postgres.spec(STORES_STOP), redis.spec(STORES_STOP))
            databases = await create_databases(postgres, home)
            for url in (databases.request, databases.response):
                connection = await asyncpg.connect(url)
                await connection.execute(TABLES)
                await connection.close()
            await load_airports(databases.response, READER)
            await supervisor.start(_api(root, ports.request, databases, redis.url))
            yield Plain(ports.request, databases, redis.url)
        finally:
            await supervisor.stop()


def _api(root: Path, port: int, databases: Databases, redis_url: str) -> ProcessSpec:
    async def ready(_process: Process) -> None:
        await probe.until_ready(port)

    told = {
        "BENCH_PORT": str(port),
        "BENCH_DATABASE": databases.request,
        "BENCH_ANSWERS": databases.response,
        "BENCH_SOURCE": databases.reader,
        "BENCH_REDIS": redis_url,
    }
    return ProcessSpec(
        name="plain-api",
        argv=(sys.executable, "-P", "-m", "bench.plain.api"),
        ready=ready,
        env=environment_for(root) | told,
        cwd=CLONE,
        stop_timeout=15.0,
    )
