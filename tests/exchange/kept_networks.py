"""Both networks' databases, made once for many tests and emptied before each."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from exchange.wire.keys import ensure_link_keys, load_link_keys
from models.streams import Network
from storage.database import connect, rows, sql
from tests.conftest import Networks, Servers, Side

KEPT_TABLES = frozenset({"schema_versions"})


@asynccontextmanager
async def make_networks(servers: Servers, root: Path, connections: int = 10) -> AsyncIterator[Networks]:
    """Both networks with migrated databases and keys of their own below ``root``."""
    ensure_link_keys(root)
    tag = uuid4().hex[:8]
    async with AsyncExitStack() as stack:
        sides = {}
        for network, template in (
            (Network.REQUEST, servers.databases.request),
            (Network.RESPONSE, servers.databases.response),
        ):
            name, owner = f"kept_{network}_{tag}", f"airlock_{network}"
            await servers.administer(f"CREATE DATABASE {name} TEMPLATE {owner} OWNER {owner} STRATEGY file_copy")
            stack.push_async_callback(servers.administer, f"DROP DATABASE {name} WITH (FORCE)")
            url = template.rsplit("/", 1)[0] + f"/{name}"
            engine = connect(url, connections, "test")
            stack.push_async_callback(engine.dispose)
            sides[network] = Side(network, url, engine, load_link_keys(root / network), root / network)
        yield Networks(sides[Network.REQUEST], sides[Network.RESPONSE], servers)


async def empty(networks: Networks) -> None:
    """Leave nothing in any table but the record of the migrations. Deleting a few rows is quicker than TRUNCATE."""
    for side in (networks.request, networks.response):
        async with side.engine.begin() as connection:
            for (name,) in await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
                if name not in KEPT_TABLES:
                    await connection.execute(sql(f"DELETE FROM {name}"))
