"""Run by Alembic: uses the connection and the transaction that `storage.migrate` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, version_table="schema_versions")
context.run_migrations()
