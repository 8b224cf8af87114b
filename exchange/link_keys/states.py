"""The states of the link's keys in one network, and an operator's orders about them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.store import (
    StoredKey,
    link_keys,
    lock_link_keys,
    put_link_key,
    revoke_link_key,
)
from exchange.wire.keys import drop_successor, key_id_of, read_public, successor
from models.errors import Conflict, NotFound
from models.streams import Network

_LONG_AGO = datetime.min.replace(tzinfo=UTC)

State = Literal["signing", "successor", "replaced", "trusted", "retiring", "retired", "revoked"]


class KeyState(BaseModel):
    """One key as this network knows it. ``ends_at``: when it retires, retired or was revoked."""

    key_id: str
    owner: Network
    state: State
    ends_at: datetime | None = None
    introduced_by: str
    """The id of the key that vouched for it, ``file`` or ``operator``."""
    since: datetime | None = None
    confirmed_at: datetime | None = None


async def key_states(keys: LiveKeys) -> list[KeyState]:
    """Every key in a file or in the database: this network's own first, then the oldest first."""
    async with keys.engine.connect() as connection:
        stored = await link_keys(connection)
    waiting = successor(keys.directory)
    in_files = {keys.files.key_id: keys.network} | dict.fromkeys(keys.files.trusted, keys.network.other)
    if waiting is not None:
        in_files[key_id_of(waiting)] = keys.network
    states = [_of_file(key_id, owner, keys) for key_id, owner in in_files.items() if key_id not in stored]
    states += [_of_row(key, keys, in_files) for key in stored.values()]
    return sorted(states, key=lambda state: (state.owner is not keys.network, state.since or _LONG_AGO))


async def revoke(keys: LiveKeys, key_id: str) -> str:
    """Reject everything that this key signed, for good. Returns a sentence for the operator.

    Raises `NotFound`, or `Conflict` for the present signing key: rotate it first.
    """
    if key_id == keys.key_id:
        raise Conflict(
            f"key {key_id} signs for this network: run airlock keys rotate --network {keys.network} first, then this"
        )
    waiting = successor(keys.directory)
    public, owner = keys.files.trusted.get(key_id), keys.network.other
    if waiting is not None and key_id_of(waiting) == key_id:
        public, owner = waiting, keys.network
        drop_successor(keys.directory)
    async with keys.engine.begin() as connection:
        await lock_link_keys(connection)
        if key_id not in await link_keys(connection):
            if public is None:
                raise NotFound(f"there is no key {key_id!r} here; see: airlock keys list --network {keys.network}")
            await put_link_key(connection, key_id, owner, public.public_bytes_raw(), None)
        changed = await revoke_link_key(connection, key_id)
    await keys.refresh()
    text = f"key {key_id} is revoked{'' if changed else ' already'}."
    if not keys.trusted:
        text += " No key of the other network is trusted now: the link pauses until airlock keys trust FILE."
    return text


async def revoke_introduced(keys: LiveKeys, since: datetime) -> list[str]:
    """Revoke every key of the other network that was introduced over the link at ``since`` or later, in one
    transaction. Returns their ids: whoever had one key there could vouch for others.
    """
    async with keys.engine.begin() as connection:
        await lock_link_keys(connection)
        found = [
            key.key_id
            for key in (await link_keys(connection)).values()
            if key.owner is not keys.network
            and key.introduced_by is not None
            and key.introduced_at >= since
            and key.revoked_at is None
        ]
        for key_id in found:
            await revoke_link_key(connection, key_id)
    await keys.refresh()
    return found


async def trust_file(keys: LiveKeys, file: Path) -> str:
    """Trust a public key of the other network, by an operator's order. Returns its id.

    Raises `Conflict` for a revoked key or one of this network's, `ConfigurationError` if the file holds no public key.
    """
    public = read_public(file)
    key_id = key_id_of(public)
    async with keys.engine.begin() as connection:
        await lock_link_keys(connection)
        known = (await link_keys(connection)).get(key_id)
        if key_id == keys.key_id or (known is not None and known.owner is keys.network):
            raise Conflict(f"{file} holds key {key_id}, which is this network's own")
        if known is not None and (known.revoked_at or known.retires_at):
            end = "was revoked" if known.revoked_at else "retires"
            raise Conflict(f"key {key_id} {end}: make a new one in the other network")
        await put_link_key(connection, key_id, keys.network.other, public.public_bytes_raw(), None)
    await keys.refresh()
    return key_id


def _of_file(key_id: str, owner: Network, keys: LiveKeys) -> KeyState:
    own: State = "signing" if key_id == keys.key_id else "successor"
    return KeyState(key_id=key_id, owner=owner, state=own if owner is keys.network else "trusted", introduced_by="file")


def _of_row(key: StoredKey, keys: LiveKeys, in_files: dict[str, Network]) -> KeyState:
    by_hand = "file" if key.key_id in in_files else "operator"
    return KeyState(
        key_id=key.key_id,
        owner=key.owner,
        state=_state(key, keys, in_files),
        ends_at=key.revoked_at or key.retires_at,
        introduced_by=key.introduced_by or by_hand,
        since=key.introduced_at,
        confirmed_at=key.confirmed_at,
    )


def _state(key: StoredKey, keys: LiveKeys, in_files: dict[str, Network]) -> State:
    if key.revoked_at is not None:
        return "revoked"
    if key.key_id == keys.key_id:
        return "signing"
    if key.retires_at is not None:
        return "retired" if key.retires_at <= datetime.now(UTC) else "retiring"
    if key.owner is not keys.network:
        return "trusted"
    return "successor" if key.key_id in in_files else "replaced"
