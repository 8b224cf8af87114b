"""Users and their API keys. Of a key only the SHA-256 is stored."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, execute, row, rows, value


async def list_users(connection: AsyncConnection) -> Sequence[AnyRow]:
    """All users by name: user_id, name, role, active, keys (the number of active ones), created_at."""
    return await rows(
        connection,
        """
        SELECT user_id, name, role, active,
               (SELECT count(*) FROM api_keys WHERE api_keys.user_id = users.user_id AND api_keys.active) AS keys,
               created_at
        FROM users ORDER BY name
        """,
    )


async def find_user_id(connection: AsyncConnection, name: str) -> UUID | None:
    """The id of the user with this name, active or not."""
    found: UUID | None = await value(connection, "SELECT user_id FROM users WHERE name = :name", name=name)
    return found


async def put_user(connection: AsyncConnection, user_id: UUID, name: str, role: str) -> UUID:
    """Create a user, or set the role of the user with this name. Return the user's id."""
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
    """Store the hash of a user's key."""
    await execute(
        connection,
        "INSERT INTO api_keys (sha256, user_id, label) VALUES (:sha256, :user_id, :label) ON CONFLICT DO NOTHING",
        sha256=hashlib.sha256(key.encode()).digest(),
        user_id=user_id,
        label=label,
    )


async def find_caller(connection: AsyncConnection, sha256: bytes) -> AnyRow | None:
    """The active user who owns the active key with this hash: user_id, name, role."""
    return await row(
        connection,
        "SELECT user_id, name, role FROM api_keys JOIN users USING (user_id)"
        " WHERE sha256 = :sha256 AND api_keys.active AND users.active",
        sha256=sha256,
    )
