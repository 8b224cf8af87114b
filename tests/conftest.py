"""Real servers for the tests: started once per run on free ports; each test gets databases of its own."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import asyncpg
import certifi
import pytest
from redis.asyncio import Redis as RedisClient
from sqlalchemy.ext.asyncio import AsyncEngine

from configuration.logs import configure_logs
from embedded.databases import READER, Databases, create_databases
from embedded.home import Home
from embedded.ports import free_ports
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from exchange.wire.keys import LinkKeys, ensure_link_keys, load_link_keys
from models.streams import Network
from storage.database import connect
from storage.migrate import upgrade
from tests.security.crossing_bytes import watching_the_link


def pytest_collection_finish() -> None:
    """Exempt the objects of imports and collection from garbage collection: a full one takes 0.2 s with them."""
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test an id of its own. schemathesis has one for all operations of a document, and pytest-xdist would
    run one test for each id.
    """
    seen: Counter[str] = Counter()
    for item in items:
        seen[item.nodeid] += 1
        if seen[item.nodeid] > 1:
            item._id = replace(item.id, params=str(seen[item.nodeid]))


NOT_DURABLE = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "scram_iterations": "1",  # 4,096 take each new connection some milliseconds, here and in the server
}
"""Settings of the tests' PostgreSQL: its data need not survive the machine, only the server. CREATE and DROP DATABASE
write everything out, which takes a second each on a busy disk."""


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and Redis as `airlock up` runs them, though PostgreSQL is `NOT_DURABLE`."""

    supervisor: Supervisor
    postgres: Postgres
    databases: Databases
    redis_url: str
    superuser: "asyncpg.Pool[asyncpg.Record]"

    async def administer(self, statement: str) -> None:
        """Run a statement as the superuser."""
        await self.superuser.execute(statement)

    async def empty_redis(self) -> None:
        """Empty the cache: the networks of different tests have the same batch numbers, and so the same keys."""
        async with RedisClient.from_url(self.redis_url) as redis:
            await redis.flushall()

    async def create_database(self, network: Network, name: str) -> str:
        """Create an empty, migrated database of this network; gives its connection string."""
        template: str = getattr(self.databases, network)
        owner = f"airlock_{network}"
        await self.administer(f"CREATE DATABASE {name} TEMPLATE {owner} OWNER {owner} STRATEGY file_copy")
        return template.rsplit("/", 1)[0] + f"/{name}"


@pytest.fixture(scope="session", autouse=True)
def _log() -> logging.Handler:
    configure_logs("console", "WARNING")
    return logging.getLogger().handlers[0]


@pytest.fixture(autouse=True)
def _log_as_before(_log: logging.Handler) -> Iterator[None]:
    """A command sends the log to the standard output that it has: in a test its runner's, which closes with it, so that
    the next warning would end whatever gives it.
    """
    yield
    root = logging.getLogger()
    if _log not in root.handlers:
        root.handlers[:] = [_log]
        root.setLevel("WARNING")


@pytest.fixture(scope="session", autouse=True)
def _one_certificate_authority(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Each client of httpx reads all certificate authorities, which takes 20 ms. The tests use none of them."""
    end = "-----END CERTIFICATE-----\n"
    one = tmp_path_factory.mktemp("authorities") / "one.pem"
    one.write_text(certifi.contents().partition(end)[0] + end)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certifi, "where", lambda: str(one))
        yield


@pytest.fixture(scope="session")
async def servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    """PostgreSQL with migrated template databases, and Redis."""
    root: Path = tmp_path_factory.mktemp("servers")
    with Home.open(root / "home") as home:
        ports = free_ports("postgres")
        supervisor = Supervisor(Terminal(), home.logs)
        try:
            postgres, redis = Postgres(home, ports.postgres), Redis(home)
            await postgres.initialise()
            spec = postgres.spec()
            settings = (part for name, setting in NOT_DURABLE.items() for part in ("-c", f"{name}={setting}"))
            spec = replace(spec, argv=(*spec.argv, *settings))
            await supervisor.start(spec, redis.spec())
            databases = await create_databases(postgres, home)
            await upgrade(databases.request, "request")
            await upgrade(databases.response, "response")
            async with asyncpg.create_pool(postgres.superuser_url, min_size=0, max_size=2) as superuser:
                yield Servers(supervisor, postgres, databases, redis.url, superuser)
        finally:
            await supervisor.stop()


@pytest.fixture(scope="session", autouse=True)
def _nothing_secret_crosses() -> Iterator[None]:
    """Every byte that crosses the link in this run is looked through for what is secret in every test."""
    with watching_the_link() as crossing:
        crossing.forbidden |= {"a database's address": b"postgresql://", "a private key": b"PRIVATE KEY-----"}
        yield
    assert not crossing.found


@dataclass(frozen=True)
class Side:
    """One network in a test: a database of its own, its keys, an engine."""

    network: Network
    url: str
    engine: AsyncEngine
    keys: LinkKeys
    keys_directory: Path


@dataclass(frozen=True)
class Networks:
    """Both networks in a test."""

    request: Side
    response: Side
    servers: Servers


@pytest.fixture
def key_root(tmp_path: Path) -> Path:
    """Fresh keys for both networks."""
    ensure_link_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
async def networks(servers: Servers, key_root: Path) -> AsyncIterator[Networks]:
    """Both networks with empty, migrated databases that nobody else uses."""
    await servers.empty_redis()
    tag = uuid4().hex[:8]
    names = {network: f"test_{network}_{tag}" for network in Network}
    urls = await asyncio.gather(*(servers.create_database(network, name) for network, name in names.items()))
    sides = {
        network: Side(network, url, connect(url, 10, "test"), load_link_keys(key_root / network), key_root / network)
        for network, url in zip(Network, urls, strict=True)
    }
    await servers.administer(f"GRANT CONNECT ON DATABASE {names[Network.RESPONSE]} TO {READER}")
    try:
        yield Networks(sides[Network.REQUEST], sides[Network.RESPONSE], servers)
    finally:
        await asyncio.gather(*(side.engine.dispose() for side in sides.values()))
        await asyncio.gather(*(servers.administer(f"DROP DATABASE {name} WITH (FORCE)") for name in names.values()))
