"""Bring a network's database to the newest schema, with Alembic.

Each network has the tables of the exchange and its own; they are separate lines of migrations in one folder each.
"""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from models.streams import Network
from storage.database import driver_url, lock_until_commit

MIGRATIONS = Path(__file__).parent / "migrations"


def alembic_config(network: str, connection: Connection | None = None) -> Config:
    """Alembic's configuration for one network: no ini file, only what differs from the defaults."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{MIGRATIONS / 'exchange'}\n{MIGRATIONS / Network(network).value}")
    config.attributes["connection"] = connection
    return config


async def upgrade(database_url: str, network: str) -> None:
    """Apply what is missing, one migrator at a time; does nothing where all is applied."""
    engine = create_async_engine(driver_url(database_url), poolclass=NullPool)
    try:
        async with asyncio.timeout(300), engine.begin() as connection:
            await lock_until_commit(connection, "airlock migrations")
            await connection.run_sync(lambda sync: command.upgrade(alembic_config(network, sync), "heads"))
    finally:
        await engine.dispose()
