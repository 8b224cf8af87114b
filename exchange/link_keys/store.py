"""The public keys of the link as this network knows them: whose, since when, vouched for by which, until when."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import Network
from storage.database import execute, lock_until_commit, rows, value


@dataclass(frozen=True)
class StoredKey:
    """One key; the times are this database's."""

    key_id: str
    owner: Network
    public_key: bytes
    """The 32 raw bytes."""
    introduced_by: str | None
    """Id of the key that vouched for this one; None for an operator or a file."""
    introduced_at: datetime
    confirmed_at: datetime | None
    """Of a key of our own: when the other network said that it trusts it."""
    retires_at: datetime | None
    revoked_at: datetime | None


async def link_keys(connection: AsyncConnection) -> dict[str, StoredKey]:
    """All of them by id, oldest first."""
    found = await rows(
        connection,
        "SELECT key_id, owner, public_key, introduced_by, introduced_at, confirmed_at, retires_at, revoked_at"
        " FROM link_keys ORDER BY introduced_at, key_id",
    )
    return {row.key_id: StoredKey(row.key_id, Network(row.owner), *row[2:]) for row in found}


async def lock_link_keys(connection: AsyncConnection) -> None:
    """One writer at a time: waits for its turn, which lasts until the transaction ends."""
    await lock_until_commit(connection, "link keys")


async def put_link_key(
    connection: AsyncConnection, key_id: str, owner: Network, public_key: bytes, introduced_by: str | None
) -> bool:
    """Note a key; one that is known stays as it is. Gives whether it is new."""
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
    """Note that the other network trusts these keys of ours."""
    await execute(
        connection,
        "UPDATE link_keys SET confirmed_at = now() WHERE owner = :owner AND confirmed_at IS NULL"
        " AND key_id = ANY(CAST(:key_ids AS text[]))",
        owner=owner.value,
        key_ids=list(key_ids),
    )


async def retire_link_key(connection: AsyncConnection, key_id: str, at: datetime) -> bool:
    """Have a key retire then, or earlier if so ordered before. Gives whether that changed anything."""
    changed = await execute(
        connection,
        "UPDATE link_keys SET retires_at = :at WHERE key_id = :key_id AND (retires_at IS NULL OR retires_at > :at)",
        key_id=key_id,
        at=at,
    )
    return changed > 0


async def revoke_link_key(connection: AsyncConnection, key_id: str) -> bool:
    """Believe nothing any more that this key signed. Gives whether that changed anything."""
    changed = await execute(
        connection,
        "UPDATE link_keys SET revoked_at = now() WHERE key_id = :key_id AND revoked_at IS NULL",
        key_id=key_id,
    )
    return changed > 0


async def retire_after(connection: AsyncConnection, key_id: str, seconds: float) -> datetime:
    """Have a key retire in so many seconds, unless its end is ordered already; gives when, in UTC."""
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
    """How long ago the other network said that it trusts this key of ours."""
    found = await value(
        connection,
        "SELECT extract(epoch FROM now() - confirmed_at)::float8 FROM link_keys WHERE key_id = :key_id",
        key_id=key_id,
    )
    return float(found)


async def try_hold_rotating(connection: AsyncConnection) -> bool:
    """One rotation of this network's key at a time; held until released, or until the connection ends."""
    return bool(await value(connection, f"SELECT pg_try_advisory_lock({_ROTATING})"))


async def release_rotating(connection: AsyncConnection) -> None:
    """Let another rotation begin."""
    await value(connection, f"SELECT pg_advisory_unlock({_ROTATING})")


_ROTATING = "hashtextextended('rotate link keys', 0)"
