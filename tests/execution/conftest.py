"""A real source: the sample's airports and a few tables that a reader may see, and some that it should not change."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import asyncpg
import pytest
from pydantic import SecretStr

from cache.redis_cache import Cache
from embedded.databases import READER
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.sql import SqlSources
from sample.install import install
from tests.conftest import Servers
from tests.exchange.kept_networks import make_networks

FUNCTIONS = "tests.execution.functions"

_DATA = f"""
CREATE SCHEMA data;
CREATE TABLE data.items (id integer PRIMARY KEY, name text NOT NULL, document json, made date);
INSERT INTO data.items SELECT n, 'item ' || n, NULL, NULL FROM generate_series(1, 20) AS n;
CREATE SEQUENCE data.counter;
CREATE FUNCTION data.add_item() RETURNS integer LANGUAGE sql AS
    'INSERT INTO data.items VALUES (1000, ''written by a function'') RETURNING id';
GRANT USAGE ON SCHEMA data TO {READER};
GRANT ALL ON data.items, data.counter TO {READER};
"""


@dataclass(frozen=True)
class Source:
    """A database that may be read: the reader's address, and the owner's to prepare and to look after it."""

    url: str
    owner_url: str

    async def run(self, statement: str) -> object:
        """As the owner; gives the first value."""
        connection = await asyncpg.connect(self.owner_url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()


@pytest.fixture(scope="session")
async def source(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Source]:
    """With the sample and the tables above; the reader may write as far as its rights go, so only the executor and the
    role's default keep it from writing.
    """
    root = tmp_path_factory.mktemp("source")
    async with make_networks(servers, root / "keys") as networks:
        name = networks.response.url.rsplit("/", 1)[1]
        await servers.administer(f"GRANT CONNECT ON DATABASE {name} TO {READER}")
        await install(networks.response.url, READER, root / "secrets")
        source = Source(servers.databases.reader.rsplit("/", 1)[0] + f"/{name}", networks.response.url)
        connection = await asyncpg.connect(source.owner_url)
        await connection.execute(_DATA)
        await connection.close()
        yield source


@pytest.fixture
async def sources(source: Source) -> AsyncIterator[SqlSources]:
    """The source by the name ``data``, with the owner's rights: nothing but the executor keeps it from writing."""
    opened = SqlSources({"data": SecretStr(source.owner_url), "sample": SecretStr(source.url)}, 3)
    yield opened
    await opened.aclose()


@pytest.fixture
async def cache(servers: Servers) -> AsyncIterator[Cache]:
    """Real Redis."""
    cache = Cache(servers.redis_url)
    yield cache
    await cache.aclose()


@pytest.fixture
async def executors(sources: SqlSources, cache: Cache) -> AsyncIterator[Executors]:
    """All three, with a Redis that is there."""
    http, python = HttpCalls(["127.0.0.1"]), PythonFunctions([FUNCTIONS])
    yield Executors(sources, http, python, cache)
    await http.aclose()
    python.close()
