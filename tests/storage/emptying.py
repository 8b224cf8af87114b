"""Databases that a folder's tests share: made once, emptied before each test, which is much quicker than new ones."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

from sqlalchemy import text

from embedded.databases import READER
from exchange.keys import ensure_link_keys, load_link_keys
from models.streams import Network
from storage.database import connect
from tests.conftest import Networks, Servers, Side


@asynccontextmanager
async def shared_networks(servers: Servers, keys: Path) -> AsyncIterator[Networks]:
    """Both networks with migrated databases of their own."""
    ensure_link_keys(keys)
    tag = uuid4().hex[:8]
    sides = {}
    for network, template in ((Network.REQUEST, servers.databases.request), (Network.RESPONSE, servers.databases.response)):
        name, owner = f"shared_{network}_{tag}", f"airlock_{network}"
        await servers.administer(f"CREATE DATABASE {name} TEMPLATE {owner} OWNER {owner} STRATEGY file_copy")
        url = template.rsplit("/", 1)[0] + f"/{name}"
        sides[network] = Side(network, url, connect(url, 10, "test"), load_link_keys(keys / network), keys / network)
    await servers.administer(f"GRANT CONNECT ON DATABASE shared_response_{tag} TO {READER}")
    try:
        yield Networks(sides[Network.REQUEST], sides[Network.RESPONSE], servers)
    finally:
        for side in sides.values():
            await side.engine.dispose()
            await servers.administer(f"DROP DATABASE shared_{side.network}_{tag} WITH (FORCE)")


async def empty(side: Side) -> None:
    """Take every row out of every table of ours but the migrations'."""
    async with side.engine.begin() as connection:
        tables = (
            await connection.execute(
                text(
                    "SELECT quote_ident(tablename) FROM pg_tables"
                    " WHERE schemaname = 'public' AND tablename <> 'schema_versions'"
                    " ORDER BY tablename <> 'api_keys'"  # refers to users
                )
            )
        ).scalars()
        for table in tables.all():
            await connection.execute(text(f"DELETE FROM {table}"))
