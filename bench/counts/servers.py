"""The servers of the counts: as `airlock up` runs them, without background writes."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from bench.counts.wire import OWN_LOOKS
from embedded.databases import Databases, create_databases
from embedded.home import Home
from embedded.ports import free_port, free_ports
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.temporal import temporal_spec
from embedded.terminal import Terminal
from models.streams import Network
from storage.migrate import upgrade

STEADY = {
    "autovacuum": "off",
    "full_page_writes": "off",
    "checkpoint_timeout": "1d",
    "max_wal_size": "8GB",
    "fsync": "off",  # changes no count, and saves time
}
"""No checkpoint and no vacuum runs by itself, so the write-ahead log holds only what the workload wrote."""


@dataclasses.dataclass(frozen=True)
class Servers:
    """Addresses, and the connection strings of the migrated template databases."""

    superuser_url: str
    templates: Databases
    redis_url: str
    temporal: str
    temporal_metrics: str
    """URL of the Temporal server's own metrics."""

    async def database(self, network: Network, name: str) -> str:
        """Create an empty, migrated database and return its connection string."""
        template = getattr(self.templates, network)
        owner = template.rsplit("/", 1)[1]
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {owner} OWNER {owner} STRATEGY file_copy")
        return str(template).rsplit("/", 1)[0] + f"/{name}"

    async def look(self, database: str = "postgres") -> "asyncpg.Connection[asyncpg.Record]":
        """A connection for the measurement itself, whose statements are not counted."""
        url = self.superuser_url.rsplit("/", 1)[0] + f"/{database}"
        return await asyncpg.connect(url, server_settings={"application_name": OWN_LOOKS})

    async def _administer(self, statement: str) -> None:
        connection = await self.look()
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def running_servers(root: Path, namespaces: list[str]) -> AsyncIterator[Servers]:
    """Run PostgreSQL, Redis and Temporal with these namespaces in an empty directory, for the block."""
    with Home.open(root / "home") as home, (root / "servers.log").open("w") as log:
        supervisor, ports = Supervisor(Terminal(log), home.logs), free_ports("postgres")
        postgres, redis = Postgres(home, ports.postgres), Redis(home)
        metrics = free_port([port for port in vars(ports).values() if port])
        temporal = temporal_spec(home.root, ports)
        more = [part for name in namespaces for part in ("--namespace", name)]
        temporal = dataclasses.replace(temporal, argv=(*temporal.argv, *more, "--metrics-port", str(metrics)))
        try:
            _, databases = await asyncio.gather(
                supervisor.start(redis.spec(), temporal), _databases(supervisor, postgres, home)
            )
            yield Servers(
                postgres.superuser_url,
                databases,
                redis.url,
                f"127.0.0.1:{ports.temporal}",
                f"http://127.0.0.1:{metrics}/metrics",
            )
        finally:
            await supervisor.stop()


async def _databases(supervisor: Supervisor, postgres: Postgres, home: Home) -> Databases:
    await postgres.initialise()
    await supervisor.start(postgres.spec())
    connection = await asyncpg.connect(postgres.superuser_url)
    try:
        for name, content in STEADY.items():
            await connection.execute(f"ALTER SYSTEM SET {name} = '{content}'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    databases = await create_databases(postgres, home)
    await upgrade(databases.request, "request")
    await upgrade(databases.response, "response")
    return databases
