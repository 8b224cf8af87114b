"""What only operators ask of the response network's database."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName
from storage.database import rows, value


@dataclass(frozen=True)
class StoredUser:
    """A user and the number of keys that work."""

    user_id: UUID
    name: str
    role: str
    active: bool
    keys: int
    created_at: datetime


async def list_users(connection: AsyncConnection) -> list[StoredUser]:
    """All users by name."""
    found = await rows(
        connection,
        """
        SELECT user_id, name, role, active,
               (SELECT count(*) FROM api_keys WHERE api_keys.user_id = users.user_id AND api_keys.active), created_at
        FROM users ORDER BY name
        """,
    )
    return [StoredUser(*item) for item in found]


async def find_user_id(connection: AsyncConnection, name: str) -> UUID | None:
    """The id of the user of this name, active or not."""
    found: UUID | None = await value(connection, "SELECT user_id FROM users WHERE name = :name", name=name)
    return found


async def preview_next_batch(
    connection: AsyncConnection, stream: StreamName, max_records: int, max_bytes: int
) -> list[bytes]:
    """What `exchange.transfer.outgoing.take_from_outbox` would take now, left where it is."""
    found = await rows(
        connection,
        """
        WITH oldest AS (
            SELECT id, sum(octet_length(body) + 1) OVER (ORDER BY id) AS bytes
            FROM (SELECT id, body FROM outbox WHERE stream = :stream ORDER BY id LIMIT :max_records) AS first_ones
        )
        SELECT body FROM outbox JOIN oldest USING (id) WHERE oldest.bytes <= :max_bytes ORDER BY id
        """,
        stream=stream,
        max_records=max_records,
        max_bytes=max_bytes,
    )
    return [body for (body,) in found]
