"""The response network's settings, request types, users and keys: what the settings snapshot is made from."""

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.requests import Limits
from models.settings import ApiKeyRecord, RequestTypeRecord, SettingRecord
from storage.database import AnyRow, execute, row, rows, value


@dataclass(frozen=True)
class StoredSetting:
    """A setting; ``value`` is None for a secret one, whose value is not even read."""

    name: str
    value: Any
    visibility: str
    version: int
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True)
class StoredRequestType:
    """A request type with its executor, as plain JSON."""

    name: str
    version: int
    description: str
    params_schema: dict[str, Any]
    limits: dict[str, Any]
    executor: dict[str, Any]
    retired_at: datetime | None
    updated_at: datetime
    updated_by: str


async def public_records(connection: AsyncConnection) -> list[bytes]:
    """The settings snapshot as records, in an order that does not depend on chance.

    This is the only query that feeds the settings stream: public settings, active types without their executor, and the
    hashes of active keys of active users. What is not selected here cannot cross.
    """
    found: list[SettingRecord | RequestTypeRecord | ApiKeyRecord] = []
    for name, content, version in await rows(
        connection, "SELECT name, value::text, version FROM settings WHERE visibility = 'public' ORDER BY name"
    ):
        found.append(SettingRecord(name=name, value=json.loads(content), version=version))
    for name, version, description, schema, limits in await rows(
        connection,
        "SELECT name, version, description, params_schema::text, limits::text FROM request_types"
        " WHERE retired_at IS NULL ORDER BY name",
    ):
        found.append(
            RequestTypeRecord(
                name=name,
                version=version,
                description=description,
                params_schema=json.loads(schema),
                limits=Limits.model_validate_json(limits),
            )
        )
    for sha256, user_id, user, role in await rows(
        connection,
        "SELECT sha256, user_id, name, role FROM api_keys JOIN users USING (user_id)"
        " WHERE api_keys.active AND users.active ORDER BY sha256",
    ):
        found.append(ApiKeyRecord(sha256=sha256.hex(), user_id=user_id, user=user, role=role))
    return [record.model_dump_json().encode() for record in found]


_SETTING = (
    "name, CASE WHEN visibility = 'public' THEN value::text END AS value, visibility, version, updated_at, updated_by"
)


def _setting(found: AnyRow) -> StoredSetting:
    name, content, *rest = found
    return StoredSetting(name, None if content is None else json.loads(content), *rest)


async def secret_settings(connection: AsyncConnection) -> dict[str, str]:
    """The secret settings for executors, as text; one that is not a string as its JSON."""
    found = await rows(connection, "SELECT name, value::text FROM settings WHERE visibility = 'secret'")
    loaded = {name: json.loads(content) for name, content in found}
    return {name: item if isinstance(item, str) else json.dumps(item) for name, item in loaded.items()}


async def list_settings(connection: AsyncConnection) -> list[StoredSetting]:
    """All settings by name."""
    return [_setting(found) for found in await rows(connection, f"SELECT {_SETTING} FROM settings ORDER BY name")]


async def find_setting(connection: AsyncConnection, name: str) -> StoredSetting | None:
    """One setting."""
    found = await row(connection, f"SELECT {_SETTING} FROM settings WHERE name = :name", name=name)
    return _setting(found) if found else None


async def put_setting(
    connection: AsyncConnection, name: str, content: Any, visibility: str, updated_by: str
) -> StoredSetting:
    """Create or change a setting; its version grows with each change of value or visibility."""
    found = await row(
        connection,
        f"""
        INSERT INTO settings (name, value, visibility, updated_by)
        VALUES (:name, CAST(:value AS jsonb), :visibility, :updated_by)
        ON CONFLICT (name) DO UPDATE SET value = excluded.value, visibility = excluded.visibility,
            version = settings.version
                + ((settings.value, settings.visibility) IS DISTINCT FROM (excluded.value, excluded.visibility))::int,
            updated_at = now(), updated_by = excluded.updated_by
        RETURNING {_SETTING}
        """,
        name=name,
        value=json.dumps(content),
        visibility=visibility,
        updated_by=updated_by,
    )
    assert found is not None
    return _setting(found)


async def delete_setting(connection: AsyncConnection, name: str) -> bool:
    """Whether there was one."""
    return await execute(connection, "DELETE FROM settings WHERE name = :name", name=name) > 0


_TYPE = (
    "name, version, description, params_schema::text, limits::text, executor::text, retired_at, updated_at, updated_by"
)


def _request_type(found: AnyRow) -> StoredRequestType:
    name, version, description, schema, limits, executor, *rest = found
    return StoredRequestType(
        name, version, description, json.loads(schema), json.loads(limits), json.loads(executor), *rest
    )


async def list_request_types(connection: AsyncConnection) -> list[StoredRequestType]:
    """All request types by name, retired ones too."""
    found = await rows(connection, f"SELECT {_TYPE} FROM request_types ORDER BY name")
    return [_request_type(item) for item in found]


async def find_request_type(connection: AsyncConnection, name: str) -> StoredRequestType | None:
    """One request type, retired or not."""
    found = await row(connection, f"SELECT {_TYPE} FROM request_types WHERE name = :name", name=name)
    return _request_type(found) if found else None


async def put_request_type(
    connection: AsyncConnection,
    name: str,
    description: str,
    params_schema: dict[str, Any],
    limits: dict[str, Any],
    executor: dict[str, Any],
    updated_by: str,
) -> StoredRequestType:
    """Create, change or bring back a request type; its version grows with each change of what it does."""
    found = await row(
        connection,
        f"""
        INSERT INTO request_types (name, description, params_schema, limits, executor, updated_by)
        VALUES (:name, :description, CAST(:params_schema AS jsonb), CAST(:limits AS jsonb), CAST(:executor AS jsonb),
                :updated_by)
        ON CONFLICT (name) DO UPDATE SET description = excluded.description, params_schema = excluded.params_schema,
            limits = excluded.limits, executor = excluded.executor, retired_at = NULL,
            version = request_types.version
                + ((request_types.description, request_types.params_schema, request_types.limits,
                    request_types.executor)
                   IS DISTINCT FROM
                   (excluded.description, excluded.params_schema, excluded.limits, excluded.executor))::int,
            updated_at = now(), updated_by = excluded.updated_by
        RETURNING {_TYPE}
        """,
        name=name,
        description=description,
        params_schema=json.dumps(params_schema),
        limits=json.dumps(limits),
        executor=json.dumps(executor),
        updated_by=updated_by,
    )
    assert found is not None
    return _request_type(found)


async def retire_request_type(connection: AsyncConnection, name: str) -> bool:
    """Whether there was an active one. Requests of it that are under way fail with a reason."""
    return (
        await execute(
            connection,
            "UPDATE request_types SET retired_at = now() WHERE name = :name AND retired_at IS NULL",
            name=name,
        )
        > 0
    )


async def put_user(connection: AsyncConnection, user_id: UUID, name: str, role: str) -> UUID:
    """Create a user, or find the one of that name; gives the id."""
    found: UUID = await value(
        connection,
        "INSERT INTO users (user_id, name, role) VALUES (:user_id, :name, :role)"
        " ON CONFLICT (name) DO UPDATE SET role = excluded.role RETURNING user_id",
        user_id=user_id,
        name=name,
        role=role,
    )
    return found


async def put_api_key(connection: AsyncConnection, user_id: UUID, key: str, label: str) -> None:
    """Store the hash of a key for a user."""
    await execute(
        connection,
        "INSERT INTO api_keys (sha256, user_id, label) VALUES (:sha256, :user_id, :label) ON CONFLICT DO NOTHING",
        sha256=hashlib.sha256(key.encode()).digest(),
        user_id=user_id,
        label=label,
    )


async def find_caller(connection: AsyncConnection, sha256: bytes) -> AnyRow | None:
    """The active user (user_id, name, role) that an active key of this hash belongs to."""
    return await row(
        connection,
        "SELECT user_id, name, role FROM api_keys JOIN users USING (user_id)"
        " WHERE sha256 = :sha256 AND api_keys.active AND users.active",
        sha256=sha256,
    )
