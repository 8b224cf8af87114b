"""The public keys of the link that this network knows: table `link_keys`."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import Network
from storage.database import execute, lock_until_commit, rows, value


@dataclass(frozen=True)
class StoredKey:
    """One key. The times are by the database's clock."""

    key_id: str
    owner: Network
    public_key: bytes
    """The 32 raw bytes."""
    introduced_by: str | None
    """Id of the key that vouched for this one; None if an operator or a file did."""
    introduced_at: datetime
    confirmed_at: datetime | None
    """For an own key: when the other network confirmed that it trusts the key."""
    retires_at: datetime | None
    revoked_at: datetime | None


async def link_keys(connection: AsyncConnection) -> dict[str, StoredKey]:
    """All keys by id, oldest first."""
    found = await rows(
        connection,
        "SELECT key_id, owner, public_key, introduced_by, introduced_at, confirmed_at, retires_at, revoked_at"
        " FROM link_keys ORDER BY introduced_at, key_id",
    )
    return {row.key_id: StoredKey(row.key_id, Network(row.owner), *row[2:]) for row in found}


async def lock_link_keys(connection: AsyncConnection) -> None:
    """Wait for the lock of the keys' single writer; it is held until the transaction ends."""
    await lock_until_commit(connection, "link keys")


async def put_link_key(
    connection: AsyncConnection, key_id: str, owner: Network, public_key: bytes, introduced_by: str | None
) -> bool:
    """Insert a key, unless it is known. Returns whether it is new."""
    added = await execute(
        connection,
        "INSERT INTO link_keys (key_id, owner, public_key, introduced_by)"
        " VALUES (:key_id, :owner, :public_key, :introduced_by) ON CONFLICT DO NOTHING",
        key_id=key_id,
        owner=owner.value,
        public_key=public_key,
        introduced_by=introduced_by,
    )
    return added > 0


async def confirm_link_keys(connection: AsyncConnection, owner: Network, key_ids: Iterable[str]) -> None:
    """Record that the other network trusts these keys of ours."""
    await execute(
        connection,
        "UPDATE link_keys SET confirmed_at = now() WHERE owner = :owner AND confirmed_at IS NULL"
        " AND key_id = ANY(CAST(:key_ids AS text[]))",
        owner=owner.value,
        key_ids=list(key_ids),
    )


async def retire_link_key(connection: AsyncConnection, key_id: str, at: datetime) -> bool:
    """Set when a key retires, unless it retires earlier already. Returns whether this changed anything."""
    changed = await execute(
        connection,
        "UPDATE link_keys SET retires_at = :at WHERE key_id = :key_id AND (retires_at IS NULL OR retires_at > :at)",
        key_id=key_id,
        at=at,
    )
    return changed > 0


async def revoke_link_key(connection: AsyncConnection, key_id: str) -> bool:
    """Record that a key is revoked. Returns whether this changed anything."""
    changed = await execute(
        connection,
        "UPDATE link_keys SET revoked_at = now() WHERE key_id = :key_id AND revoked_at IS NULL",
        key_id=key_id,
    )
    return changed > 0


async def retire_after(connection: AsyncConnection, key_id: str, seconds: float) -> datetime:
    """Retire a key after ``seconds``, unless its end is set already. Returns when it retires, in UTC."""
    await execute(
        connection,
        "UPDATE link_keys SET retires_at = now() + make_interval(secs => :seconds)"
        " WHERE key_id = :key_id AND retires_at IS NULL",
        key_id=key_id,
        seconds=seconds,
    )
    retires_at: datetime = await value(
        connection, "SELECT retires_at FROM link_keys WHERE key_id = :key_id", key_id=key_id
    )
    return retires_at.astimezone(UTC)


async def seconds_since_confirmed(connection: AsyncConnection, key_id: str) -> float:
    """Seconds since the other network confirmed this key."""
    found = await value(
        connection,
        "SELECT extract(epoch FROM now() - confirmed_at)::float8 FROM link_keys WHERE key_id = :key_id",
        key_id=key_id,
    )
    return float(found)


async def try_lock_rotation(connection: AsyncConnection) -> bool:
    """Take the lock for rotations, unless it is taken. It ends with `unlock_rotation` or the connection."""
    return bool(await value(connection, f"SELECT pg_try_advisory_lock({_ROTATING})"))


async def unlock_rotation(connection: AsyncConnection) -> None:
    """Release the lock of `try_lock_rotation`."""
    await value(connection, f"SELECT pg_advisory_unlock({_ROTATING})")


_ROTATING = "hashtextextended('rotate link keys', 0)"
