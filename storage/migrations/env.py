"""Run by Alembic, in the connection and transaction of `storage.migrate`."""

from alembic import context

from storage.migrate import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=VERSION_TABLE)
context.run_migrations()
