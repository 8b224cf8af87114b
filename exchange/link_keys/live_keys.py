"""The link's present keys. They are reloaded from files and database, so that no process needs a restart.

The files are the root of trust and hold the private keys. The database holds the keys introduced over the link and the
ends of keys; all processes of a network share it. For a key that is in both, the database decides.
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
"""How often a process reloads the keys."""


def merge_keys(files: LinkKeys, stored: Iterable[StoredKey], network: Network) -> LinkKeys:
    """The keys of the files, changed and completed by those of the database."""
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


async def current_keys(connection: AsyncConnection, network: Network, directory: Path) -> LinkKeys:
    """The keys at this moment, for a short-lived process. Raises `ConfigurationError`."""
    return merge_keys(load_link_keys(directory), (await link_keys(connection)).values(), network)


class LiveKeys(LinkKeys):
    """A network's keys that are replaced in place. All change at once, and only while their user awaits.

    Starts with the keys of the files. Raises `ConfigurationError` if they are not valid.
    """

    def __init__(self, engine: AsyncEngine, network: Network, directory: Path) -> None:
        files = load_link_keys(directory)
        own = {"engine": engine, "network": network, "directory": directory, "files": files}
        vars(self).update(vars(files) | own, _file_stamps=(), _reloading=asyncio.Lock(), _reloads=0)

    engine: AsyncEngine
    network: Network
    directory: Path
    files: LinkKeys
    """The directory's last valid content."""
    _file_stamps: tuple[object, ...]
    _reloading: asyncio.Lock
    _reloads: int
    """How often the database has answered."""

    async def read(self, connection: AsyncConnection) -> LinkKeys:
        """The keys as this transaction sees them."""
        return merge_keys(self.files, (await link_keys(connection)).values(), self.network)

    async def refresh(self) -> None:
        """Reload files and database now. Concurrent callers share a reload that began after they called."""
        reloads = self._reloads
        async with self._reloading:
            if self._reloads > reloads + 1:
                return  # one began and ended while we waited
            self._reload_files()
            async with autocommit(self.engine) as connection:
                now = await self.read(connection)
            earlier = self.earlier if now.key_id == self.key_id else {self.key_id: self.signing}
            if self._reloads:
                self._log_changes(now)
            vars(self).update(vars(now) | {"earlier": earlier, "_reloads": self._reloads + 1})

    async def know(self, key_id: str) -> None:
        """Reload at once if this process does not know the key: another process may have just stored it.

        Raises the database's error only if it has never answered: a key from a file may be revoked.
        """
        if self._reloads and key_id in self.trusted:
            return
        try:
            await self.refresh()
        except (DBAPIError, OSError, *UNREACHABLE):
            if not self._reloads:
                raise

    async def keep_current(self) -> None:
        """Reload every `LOOK_SECONDS`, for ever. While the database does not answer, the known keys stay."""
        outage = OutageLog("keys.database_away", "keys.database_back", log)
        while True:
            try:
                await self.refresh()
                outage.succeeded()
            except (DBAPIError, OSError, *UNREACHABLE) as error:
                outage.failed(error)
            await asyncio.sleep(LOOK_SECONDS)

    def _reload_files(self) -> None:
        stamps = _stamps(self.directory)
        if stamps == self._file_stamps:
            return
        try:
            vars(self).update(files=load_link_keys(self.directory))
        except ConfigurationError as error:
            log.error("keys.files_unsound", reason=str(error), todo="correct them; the previous keys stay until then")
        vars(self).update(_file_stamps=stamps)

    def _log_changes(self, now: LinkKeys) -> None:
        if now.key_id != self.key_id:
            log.info("keys.signing_changed", before=self.key_id, now=now.key_id)
        for key_id in now.trusted.keys() - self.trusted.keys():
            log.info("keys.trusted", key=key_id)
        for key_id in self.trusted.keys() - now.trusted.keys():
            log.warning("keys.no_longer_trusted", key=key_id)


def _stamps(directory: Path) -> tuple[object, ...]:
    """A value that changes with the key files."""
    found: list[object] = []
    for file in (directory / SIGNING, *sorted((directory / "trusted").glob("*.pem"))):
        try:
            state = file.stat()
        except OSError:
            found.append((file.name, None))
        else:
            found.append((file.name, state.st_mtime_ns, state.st_ino, state.st_size))
    return tuple(found)
