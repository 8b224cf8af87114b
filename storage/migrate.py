"""Bring a network's database to the newest schema, with Alembic.

Each network has two lines of migrations: ``exchange``, which both networks have, and its own.
"""

import asyncio
import re
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from models.errors import ConfigurationError
from models.streams import Network
from storage.database import driver_url, lock_until_commit

MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "schema_versions"
UNRELEASED = re.compile(r"(exchange|request|response)_\d{4}")
"""Revisions of unreleased versions, which cannot be upgraded. Released ones are ``exchange_1`` and so on."""


def alembic_config(network: str, connection: Connection | None = None) -> Config:
    """Alembic's configuration for one network, without an ini file."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{MIGRATIONS / 'exchange'}\n{MIGRATIONS / Network(network).value}")
    config.attributes["connection"] = connection
    return config


async def upgrade(database_url: str, network: str) -> None:
    """Apply the migrations that are missing, one migrator at a time.

    Raises `ConfigurationError` if another version made the database and this one cannot upgrade it.
    """
    engine = create_async_engine(driver_url(database_url), poolclass=NullPool, hide_parameters=True)
    try:
        async with asyncio.timeout(300), engine.begin() as connection:
            await lock_until_commit(connection, "airlock migrations")
            await connection.run_sync(_upgrade, network)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, network: str) -> None:
    config = alembic_config(network, connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    if unknown := sorted(set(context.get_current_heads()) - known):
        raise ConfigurationError(_made_elsewhere(network, unknown))
    command.upgrade(config, "heads")


def _made_elsewhere(network: str, unknown: list[str]) -> str:
    made = f"the {network} network's database (at {', '.join(unknown)}) was made by"
    if any(UNRELEASED.fullmatch(revision) for revision in unknown):
        return (
            f"{made} an unreleased version of Airlock and cannot be upgraded: start with an empty database, which for"
            " `airlock up` means to move AIRLOCK_HOME (.airlock by default) away"
        )
    return f"{made} a newer version of Airlock: run that version, or restore a backup made by this one"
