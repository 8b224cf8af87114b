"""The message by which a network tells the other one its keys, and the rules for accepting it.

A list holds the network's own keys, with their ends, and the ids of the other network's keys that it trusts. The
receiver trusts the key that signs the list already; this key vouches for the new ones. A network signs with a new key
only after the other one has listed it as trusted. Sending a list twice changes nothing.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.errors import Malformed
from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.store import (
    StoredKey,
    confirm_link_keys,
    link_keys,
    lock_link_keys,
    put_link_key,
    retire_link_key,
    revoke_link_key,
)
from exchange.wire.keys import key_id_of
from exchange.wire.manifest import Sha256Hex
from exchange.wire.messages import Signed
from models.requests import Moment
from models.streams import Network

log = structlog.get_logger(__name__)

MOST = 12
"""Most keys in one list: the newest. So the list fits into the 4 KiB of a signed message."""


MOST_NEW, NEW_SECONDS = 6, 86_400.0
"""So many keys of the other network may be introduced over the link in this time, ended ones too."""


class KeyEntry(BaseModel):
    """One key of the network that signs the list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    public_key: Sha256Hex = Field(description="The 32 raw bytes, hexadecimal")
    retires_at: Moment | None = None
    revoked: bool = False

    @property
    def key_id(self) -> str:
        return key_id_of(Ed25519PublicKey.from_public_bytes(bytes.fromhex(self.public_key)))


class KeyList(Signed):
    """A network's own keys, and those of the other network that it trusts."""

    purpose = "keys"
    media_type: ClassVar[str] = "application/vnd.airlock.keys"

    network: Network
    own: tuple[KeyEntry, ...] = Field(max_length=MOST)
    known: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")], ...] = Field(max_length=MOST)


async def key_list(connection: AsyncConnection, keys: LiveKeys, link: str) -> KeyList:
    """The list that this network sends."""
    stored = await link_keys(connection)
    now = await keys.read(connection)
    own = [key for key in stored.values() if key.owner is keys.network and key.key_id != now.key_id]
    entries = [_entry(key) for key in own[1 - MOST :]]
    signing = KeyEntry(public_key=keys.signing.public_key().public_bytes_raw().hex())
    newest = [key_id for key_id in reversed(stored) if key_id in now.trusted]
    known = [*newest, *sorted(now.trusted.keys() - stored.keys())][:MOST]
    return KeyList(link=link, network=keys.network, own=(signing, *entries), known=tuple(known), key_id=keys.key_id)


async def take_key_list(connection: AsyncConnection, keys: LiveKeys, link: str, received: KeyList) -> bool:
    """Apply a verified list of the other network, in the caller's transaction. Returns whether it changed anything.

    A revoked key is never trusted again. A list cannot end the key that signs it, so one trusted key remains. A list
    signed by a retiring key only confirms keys. No more new keys are taken than `MOST_NEW`: whoever has one key could
    otherwise make any number of others. Raises `Malformed`.
    """
    if received.network is keys.network or received.link != link:
        raise Malformed(
            f"a list of the {received.network} network's keys for link {received.link} came to {keys.network}"
        )
    await lock_link_keys(connection)
    stored = await link_keys(connection)
    await confirm_link_keys(connection, keys.network, received.known)
    signer = stored.get(received.key_id)
    if signer is not None and signer.retires_at is not None:
        return False
    changed, room = False, _room(stored, received.network)
    for entry in received.own:
        key_id = entry.key_id
        known = stored.get(key_id)
        if key_id == keys.key_id or (known is not None and known.owner is keys.network):
            raise Malformed(f"key {key_id} is this network's own: the {received.network} network cannot have it")
        if known is None and entry.key_id not in keys.files.trusted and entry.key_id != received.key_id:
            if not room:
                log.error("keys.too_many", refused=key_id, signed_by=received.key_id, todo="see airlock keys list")
                continue
            room -= 1
        if known is None and await _add(connection, keys, received, entry):
            changed = True
        if key_id == received.key_id:
            continue
        if entry.revoked and await revoke_link_key(connection, key_id):
            log.warning("keys.revoked_by_owner", key=key_id, signed_by=received.key_id)
            changed = True
        elif entry.retires_at is not None and await retire_link_key(connection, key_id, entry.retires_at):
            log.info("keys.retires", key=key_id, at=entry.retires_at.isoformat())
            changed = True
    return changed


def _room(stored: Mapping[str, StoredKey], owner: Network) -> int:
    """How many more keys of this network may be introduced over the link now."""
    since = datetime.now(UTC) - timedelta(seconds=NEW_SECONDS)
    introduced = [key for key in stored.values() if key.owner is owner and key.introduced_by]
    new = sum(key.introduced_at > since for key in introduced)
    lasting = sum(key.revoked_at is None and key.retires_at is None for key in introduced)
    return max(0, min(MOST_NEW - new, MOST - lasting))


async def _add(connection: AsyncConnection, keys: LiveKeys, received: KeyList, entry: KeyEntry) -> bool:
    """Insert a key. Returns whether it is newly trusted: a key from a file was trusted before."""
    key_id, from_file = entry.key_id, entry.key_id in keys.files.trusted
    introduced_by = None if from_file or key_id == received.key_id else received.key_id
    await put_link_key(connection, key_id, received.network, bytes.fromhex(entry.public_key), introduced_by)
    if not from_file:
        log.info("keys.introduced", key=key_id, by=received.key_id)
    return not from_file


def _entry(key: StoredKey) -> KeyEntry:
    return KeyEntry(public_key=key.public_key.hex(), retires_at=key.retires_at, revoked=key.revoked_at is not None)
