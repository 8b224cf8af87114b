"""The response network's settings. Public ones cross the link; secret ones stay and are read by executors only."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, execute, row, rows


@dataclass(frozen=True)
class StoredSetting:
    """A setting. The value of a secret one is not read from the database: ``value`` is None."""

    name: str
    value: Any
    visibility: str
    version: int
    updated_at: datetime
    updated_by: str


_COLUMNS = (
    "name, CASE WHEN visibility = 'public' THEN value::text END AS value, visibility, version, updated_at, updated_by"
)


def _setting(found: AnyRow) -> StoredSetting:
    name, content, *rest = found
    return StoredSetting(name, None if content is None else json.loads(content), *rest)


async def list_settings(connection: AsyncConnection) -> list[StoredSetting]:
    """All settings by name."""
    return [_setting(found) for found in await rows(connection, f"SELECT {_COLUMNS} FROM settings ORDER BY name")]


async def find_setting(connection: AsyncConnection, name: str) -> StoredSetting | None:
    """One setting."""
    found = await row(connection, f"SELECT {_COLUMNS} FROM settings WHERE name = :name", name=name)
    return _setting(found) if found else None


async def put_setting(
    connection: AsyncConnection, name: str, content: Any, visibility: str, updated_by: str
) -> StoredSetting:
    """Create or change a setting. Its version increases when the value or the visibility changes."""
    found = await row(
        connection,
        f"""
        INSERT INTO settings (name, value, visibility, updated_by)
        VALUES (:name, CAST(:value AS jsonb), :visibility, :updated_by)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value, visibility = excluded.visibility,
            version = settings.version
                + ((settings.value, settings.visibility) IS DISTINCT FROM (excluded.value, excluded.visibility))::int,
            updated_at = now(), updated_by = excluded.updated_by
        RETURNING {_COLUMNS}
        """,
        name=name,
        value=json.dumps(content),
        visibility=visibility,
        updated_by=updated_by,
    )
    assert found is not None
    return _setting(found)


async def delete_setting(connection: AsyncConnection, name: str) -> bool:
    """Delete a setting. Return False if there was none."""
    return await execute(connection, "DELETE FROM settings WHERE name = :name", name=name) > 0


async def secret_settings(connection: AsyncConnection) -> dict[str, str]:
    """The secret settings for executors, as text. A value that is not a string is given as JSON."""
    found = await rows(connection, "SELECT name, value::text FROM settings WHERE visibility = 'secret'")
    loaded = {name: json.loads(content) for name, content in found}
    return {name: item if isinstance(item, str) else json.dumps(item) for name, item in loaded.items()}
