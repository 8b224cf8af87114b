"""A backup of one network's database, and its restoration: what was committed since is gone there."""

from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.database import execute, rows, sql

KEPT = frozenset({"alembic_version", "schema_versions"})


async def _tables(connection: AsyncConnection, schema: str) -> list[str]:
    found = await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = :schema", schema=schema)
    return sorted(name for (name,) in found if name not in KEPT)


async def _refers(connection: AsyncConnection) -> Callable[[str], bool]:
    """Whether a table's rows refer to those of another, which must be there first."""
    found = await rows(connection, "SELECT conrelid::regclass::text FROM pg_constraint WHERE contype = 'f'")
    referring = {name for (name,) in found}
    return lambda name: name in referring


async def back_up(engine: AsyncEngine) -> None:
    """Copy every table into a schema of its own."""
    async with engine.begin() as connection:
        await execute(connection, "DROP SCHEMA IF EXISTS backup CASCADE")
        await execute(connection, "CREATE SCHEMA backup")
        for name in await _tables(connection, "public"):
            await connection.execute(sql(f"CREATE TABLE backup.{name} AS TABLE public.{name}"))


async def restore(engine: AsyncEngine) -> None:
    """Make every table what it was."""
    async with engine.begin() as connection:
        tables = await _tables(connection, "backup")
        await connection.execute(sql("TRUNCATE " + ", ".join(f"public.{name}" for name in tables)))
        for name in sorted(tables, key=await _refers(connection)):
            await connection.execute(
                sql(f"INSERT INTO public.{name} OVERRIDING SYSTEM VALUE SELECT * FROM backup.{name}")
            )
        await execute(connection, "DROP SCHEMA backup CASCADE")
