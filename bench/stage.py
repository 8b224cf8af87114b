"""A whole Airlock on free ports for one measurement: the servers of `airlock up`, with any number of workers.

Its schedules fire once a year, and its export delivers only what is ready when it is triggered. So a backlog can be
filled without being drained at the same time.
"""

import dataclasses
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from temporalio.client import Client, ScheduleOverlapPolicy

from configuration.cadences import DEFAULT_CADENCES, EXPORT_RESULTS
from configuration.home import CLONE
from embedded.applications import Surroundings, api_spec, worker_spec
from embedded.boot import together
from embedded.databases import READER, Databases, create_databases
from embedded.home import Home
from embedded.ports import Ports, free_port, free_ports
from embedded.postgres import Postgres
from embedded.process import ProcessSpec
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.temporal import temporal_spec
from embedded.terminal import Terminal
from exchange.wire.keys import ensure_link_keys
from sample.install import SampleAccess, install
from storage.migrate import upgrade

WORKERS_STOP, APIS_STOP, TEMPORAL_STOPS, STORES_STOP = range(4)
CADENCES = json.dumps({name: {"every": 365 * 86400, "follow": name != EXPORT_RESULTS} for name in DEFAULT_CADENCES})


@dataclasses.dataclass(frozen=True)
class Cast:
    """Number of processes of each kind. The link leads to the first request API."""

    response_workers: int = 1
    request_workers: int = 1
    request_apis: int = 1


class Stage:
    """Addresses, databases and processes."""

    def __init__(self, home: Home, where: Surroundings, supervisor: Supervisor, postgres: Postgres) -> None:
        self.home = home
        self.where = where
        self.supervisor = supervisor
        self.postgres = postgres
        self.access: SampleAccess
        self.request_apis: list[str] = []

    @property
    def databases(self) -> Databases:
        return self.where.databases

    async def temporal(self, network: str) -> Client:
        """A client of the network's namespace."""
        return await Client.connect(f"127.0.0.1:{self.where.ports.temporal}", namespace=network)

    async def connect(self, network: str) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection to the network's database for the measurement itself, without a statement timeout."""
        return await asyncpg.connect(getattr(self.databases, network))

    async def begin_drain(self) -> None:
        """Start a run of the export. It delivers what is ready, and ends."""
        client = await self.temporal("response")
        await client.get_schedule_handle(EXPORT_RESULTS).trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)

    async def checkpoint(self) -> None:
        """Write everything to disk, so that no contestant pays for the writes of another."""
        connection = await asyncpg.connect(self.postgres.superuser_url)
        try:
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    def pids(self, *kinds: str) -> dict[str, int]:
        """Name and pid of the processes of these kinds: ``response-worker``, ``request-api``, …"""
        return {name: pid for name, pid in self.supervisor.pids().items() if name.startswith(kinds)}

    async def add(self, cast: Cast) -> None:
        """Start more processes, up to these numbers."""
        running = self.supervisor.pids()
        specs = [spec for spec in self._specs(cast) if spec.name not in running]
        await self.supervisor.start(*specs)

    def _specs(self, cast: Cast) -> list[ProcessSpec]:
        specs = [api_spec("response", self.where, APIS_STOP)]
        for number in range(1, cast.request_apis + 1):
            ports = self.where.ports
            if number > 1:
                ports = dataclasses.replace(ports, request=free_port([port for port in vars(ports).values() if port]))
            if number > len(self.request_apis):
                self.request_apis.append(f"http://127.0.0.1:{ports.request}")
                spec = api_spec("request", dataclasses.replace(self.where, ports=ports), APIS_STOP)
                specs.append(dataclasses.replace(spec, name=_numbered("request-api", number)))
        for network, count in (("response", cast.response_workers), ("request", cast.request_workers)):
            spec = worker_spec(network, self.where, WORKERS_STOP)
            specs += [dataclasses.replace(spec, name=_numbered(spec.name, number)) for number in range(1, count + 1)]
        return specs


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"


@asynccontextmanager
async def stage(
    root: Path,
    cast: Cast = Cast(),
    environment: Mapping[str, str] | None = None,
    postgres_settings: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """Start everything in an empty directory, and stop it at the end. The logs are kept in the directory.

    ``postgres_settings`` are added to those of `airlock up`, say for pg_stat_statements.
    """
    with Home.open(root) as home, (root / "stage.log").open("w") as log:
        supervisor = Supervisor(Terminal(log), home.logs)
        ports = free_ports("postgres")
        postgres, redis = Postgres(home, ports.postgres), Redis(home)
        try:
            databases = await _servers(home, ports, supervisor, postgres, redis, postgres_settings or {})
            ensure_link_keys(home.keys)
            told = {name: value for name, value in os.environ.items() if not name.startswith("AIRLOCK_")}
            told |= {"AIRLOCK_RESPONSE_CADENCES": CADENCES}
            where = Surroundings(CLONE, root, ports, databases, redis.url, told | dict(environment or {}))
            ready = Stage(home, where, supervisor, postgres)
            ready.access = await install(databases.response, READER, home.secrets)
            await ready.add(cast)
            yield ready
        finally:
            await supervisor.stop()


async def _servers(
    home: Home, ports: Ports, supervisor: Supervisor, postgres: Postgres, redis: Redis, settings: Mapping[str, str]
) -> Databases:
    async def databases() -> Databases:
        await postgres.initialise()
        spec = postgres.spec(STORES_STOP)
        more = tuple(part for name, setting in settings.items() for part in ("-c", f"{name}={setting}"))
        await supervisor.start(dataclasses.replace(spec, argv=spec.argv + more))
        made = await create_databases(postgres, home)
        await upgrade(made.request, "request")
        await upgrade(made.response, "response")
        return made

    made: Databases
    made, *_ = await together(
        databases(),
        supervisor.start(redis.spec(STORES_STOP)),
        supervisor.start(temporal_spec(home.root, ports, TEMPORAL_STOPS)),
    )
    return made
