"""Migrations on a real, fresh database: once, twice and by two at a time."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from models.errors import ConfigurationError
from storage.migrate import upgrade
from tests.conftest import Servers

EXCHANGE = {
    "epochs",
    "incoming_streams",
    "link_keys",
    "outbox",
    "outgoing_streams",
    "quarantined_records",
    "received_batches",
    "sealed_batches",
    "set_aside",
}
OWN = {
    "request": {"alerts", "attendances", "idempotency_keys", "request_groups", "requests", "results", "snapshots"},
    "response": {
        "alerts",
        "api_keys",
        "cancellations",
        "link_attempts",
        "measurements",
        "request_types",
        "requests",
        "results",
        "settings",
        "users",
    },
}


@pytest.fixture(params=["request", "response"])
async def fresh(servers: Servers, request: pytest.FixtureRequest) -> AsyncIterator[tuple[str, str]]:
    """The network, and the address of an empty database of its owner's."""
    network, name = str(request.param), f"fresh_{uuid4().hex[:8]}"
    await servers.administer(f"CREATE DATABASE {name} OWNER airlock_{network} STRATEGY file_copy")
    yield network, getattr(servers.databases, network).rsplit("/", 1)[0] + f"/{name}"
    await servers.administer(f"DROP DATABASE {name} WITH (FORCE)")


async def tables(url: str) -> set[str]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {row["tablename"] for row in found} - {"schema_versions"}
    finally:
        await connection.close()


async def versions(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    try:
        return sorted(row[0] for row in await connection.fetch("SELECT version_num FROM schema_versions"))
    finally:
        await connection.close()


async def test_a_fresh_database_gets_its_networks_tables_and_a_second_time_changes_nothing(
    fresh: tuple[str, str],
) -> None:
    network, url = fresh
    await upgrade(url, network)
    assert await tables(url) == EXCHANGE | OWN[network]
    before = await versions(url)
    assert len(before) == 2
    connection = await asyncpg.connect(url)
    await connection.execute("INSERT INTO outbox (stream, body) VALUES ('results', 'kept')")
    await upgrade(url.replace("postgresql://", "postgres://"), network)
    assert await versions(url) == before
    assert await connection.fetchval("SELECT count(*) FROM outbox") == 1
    await connection.close()


async def test_two_that_migrate_at_the_same_time_both_end_with_the_newest_schema(fresh: tuple[str, str]) -> None:
    network, url = fresh
    async with asyncio.timeout(30):
        await asyncio.gather(*(upgrade(url, network) for _ in range(2)))
    assert await tables(url) == EXCHANGE | OWN[network]
    assert len(await versions(url)) == 2


@pytest.mark.parametrize(
    ("revision", "says"),
    [
        ("exchange_0007", "made by an unreleased version of Airlock.*start with an empty database.*move AIRLOCK_HOME"),
        ("exchange_2000000", "made by a newer version of Airlock: run that version"),
    ],
)
async def test_a_database_of_another_version_is_refused_with_what_to_do_and_not_changed(
    fresh: tuple[str, str], revision: str, says: str
) -> None:
    network, url = fresh
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE schema_versions (version_num varchar(32) PRIMARY KEY)")
    await connection.execute("INSERT INTO schema_versions VALUES ($1)", revision)
    await connection.close()
    with pytest.raises(ConfigurationError, match=f"the {network} network's database .at {revision}. was {says}"):
        await upgrade(url, network)
    assert await versions(url) == [revision]
    assert await tables(url) == set()
