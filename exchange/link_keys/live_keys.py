"""The link's keys as they are now: files and database are looked at again, so that no process needs a restart.

Files are the root of trust and hold what is private; what was introduced over the link, and what retired, is in the
database, which all processes of a network share. Where both speak of a key, the database is right.
"""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from configuration.logs import OutageLog
from exchange.link_keys.store import StoredKey, link_keys
from exchange.wire.keys import SIGNING, LinkKeys, load_link_keys
from models.errors import ConfigurationError
from models.streams import Network
from storage.database import UNREACHABLE, autocommit

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""How often a process looks whether keys have changed."""


def overlaid(files: LinkKeys, stored: Iterable[StoredKey], network: Network) -> LinkKeys:
    """The keys of files, as far as the database does not say otherwise, and those that it adds."""
    now = datetime.now(UTC)
    trusted, own = dict(files.trusted), dict(files.own)
    retired: dict[str, Ed25519PublicKey] = {}
    ended: dict[str, datetime] = {}
    for key in stored:
        public = Ed25519PublicKey.from_public_bytes(key.public_key)
        if key.owner is network:
            if key.revoked_at is None:
                own[key.key_id] = public
            continue
        trusted.pop(key.key_id, None)
        if key.revoked_at is not None:
            ended[key.key_id] = key.revoked_at
        elif key.retires_at is not None and key.retires_at <= now:
            ended[key.key_id], retired[key.key_id] = key.retires_at, public
        else:
            trusted[key.key_id] = public
    return LinkKeys(files.signing, files.key_id, trusted, retired, ended, own)


async def keys_seen_by(connection: AsyncConnection, network: Network, directory: Path) -> LinkKeys:
    """The keys as they are at this moment, for what ends soon. Raises `ConfigurationError`."""
    return overlaid(load_link_keys(directory), (await link_keys(connection)).values(), network)


class LiveKeys(LinkKeys):
    """A network's keys that change under whoever holds them: all at once, between two awaits, never within one step.

    Begins with what the files say; raises `ConfigurationError` when they say nothing.
    """

    def __init__(self, engine: AsyncEngine, network: Network, directory: Path) -> None:
        files = load_link_keys(directory)
        own = {"engine": engine, "network": network, "directory": directory, "files": files, "looked": False}
        vars(self).update(vars(files) | own, _seen=(), _looking=asyncio.Lock(), _looks=0)

    engine: AsyncEngine
    network: Network
    directory: Path
    files: LinkKeys
    """What the directory said when it was last sound."""
    looked: bool
    """Whether the database has been asked."""
    _seen: tuple[object, ...]
    _looking: asyncio.Lock
    _looks: int

    async def read(self, connection: AsyncConnection) -> LinkKeys:
        """The keys as this transaction sees them."""
        return overlaid(self.files, (await link_keys(connection)).values(), self.network)

    async def refresh(self) -> None:
        """Look at the files and the database now; callers at the same time share a look that began after they came."""
        looks = self._looks
        async with self._looking:
            if self._looks > looks + 1:
                return  # one began and ended while we waited
            self._look_at_files()
            async with autocommit(self.engine) as connection:
                now = await self.read(connection)
            earlier = self.earlier if now.key_id == self.key_id else {self.key_id: self.signing}
            if self.looked:
                self._tell(now)
            vars(self).update(vars(now) | {"earlier": earlier, "looked": True, "_looks": self._looks + 1})

    async def know(self, key_id: str) -> None:
        """Look at once where a key is new to this process: another one may just have taken it in.

        Raises what the database raises only while it has never answered: a revoked key may still be in a file.
        """
        if self.looked and key_id in self.trusted:
            return
        try:
            await self.refresh()
        except (DBAPIError, OSError, *UNREACHABLE):
            if not self.looked:
                raise

    async def keep_current(self) -> None:
        """Look again every `LOOK_SECONDS`, for ever. While the database is away, what was known stays."""
        outage = OutageLog("keys.database_away", "keys.database_back", log)
        while True:
            try:
                await self.refresh()
                outage.succeeded()
            except (DBAPIError, OSError, *UNREACHABLE) as error:
                outage.failed(error)
            await asyncio.sleep(LOOK_SECONDS)

    def _look_at_files(self) -> None:
        seen = _stamps(self.directory)
        if seen == self._seen:
            return
        try:
            vars(self).update(files=load_link_keys(self.directory))
        except ConfigurationError as error:
            log.error("keys.files_unsound", reason=str(error), todo="mend them; until then the keys before stay")
        vars(self).update(_seen=seen)

    def _tell(self, now: LinkKeys) -> None:
        if now.key_id != self.key_id:
            log.info("keys.signing_changed", before=self.key_id, now=now.key_id)
        for key_id in now.trusted.keys() - self.trusted.keys():
            log.info("keys.trusted", key=key_id)
        for key_id in self.trusted.keys() - now.trusted.keys():
            log.warning("keys.no_longer_trusted", key=key_id)


def _stamps(directory: Path) -> tuple[object, ...]:
    """Differs after any change of the key files."""
    found: list[object] = []
    for file in (directory / SIGNING, *sorted((directory / "trusted").glob("*.pem"))):
        try:
            state = file.stat()
        except OSError:
            found.append((file.name, None))
        else:
            found.append((file.name, state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)
