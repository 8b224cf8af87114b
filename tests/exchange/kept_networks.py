"""Both networks' databases, made once for many tests and emptied before each."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from exchange.wire.keys import ensure_link_keys, load_link_keys
from models.streams import Network
from storage.database import connect, sql
from storage.migrate import VERSION_TABLE
from tests.conftest import Networks, Servers, Side

EMPTY = f"""
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> '{VERSION_TABLE}'
        ORDER BY tablename = 'users'  -- api_keys refer to users
    LOOP EXECUTE format('DELETE FROM %I', name); END LOOP;
END $$
"""
"""Deleting a few rows is quicker than TRUNCATE, and one statement quicker than one for each table."""


@asynccontextmanager
async def make_networks(servers: Servers, root: Path, connections: int = 10) -> AsyncIterator[Networks]:
    """Both networks with migrated databases and keys of their own below ``root``."""
    ensure_link_keys(root)
    await servers.empty_redis()
    tag = uuid4().hex[:8]
    async with AsyncExitStack() as stack:
        sides = {}
        for network in Network:
            name = f"kept_{network}_{tag}"
            url = await servers.create_database(network, name)
            stack.push_async_callback(servers.administer, f"DROP DATABASE {name} WITH (FORCE)")
            engine = connect(url, connections, "test")
            stack.push_async_callback(engine.dispose)
            sides[network] = Side(network, url, engine, load_link_keys(root / network), root / network)
        yield Networks(sides[Network.REQUEST], sides[Network.RESPONSE], servers)


async def empty(networks: Networks) -> None:
    """Leave nothing in Redis, and nothing in any table but the record of the migrations."""
    await networks.servers.empty_redis()
    for side in (networks.request, networks.response):
        async with side.engine.begin() as connection:
            await connection.execute(sql(EMPTY))
