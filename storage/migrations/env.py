"""Run by Alembic: uses the connection and the transaction that `storage.migrate` hands over."""

from alembic import context

from storage.migrate import VERSION_TABLE

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table=VERSION_TABLE)
context.run_migrations()
