"""Rotating a network's signing key: make a successor, wait until the other network trusts it, sign with it, retire the
previous key.

Each step is stored before the next begins, so a second run continues where the first one ended. ``next.pem`` means
that a successor waits, ``confirmed_at`` that the other network trusts it. If the previous key has no end yet, only its
retirement is missing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.errors import LinkError, LinkUnavailable
from exchange.link_keys.introduction import TELL_SECONDS, KeyExchange
from exchange.link_keys.live_keys import LOOK_SECONDS, LiveKeys
from exchange.link_keys.store import (
    StoredKey,
    confirm_link_keys,
    link_keys,
    put_link_key,
    retire_after,
    seconds_since_confirmed,
    try_lock_rotation,
    unlock_rotation,
)
from exchange.wire.keys import key_id_of, make_successor, promote_successor, successor
from models.errors import Conflict, Unavailable
from storage.database import autocommit

SETTLE_SECONDS = 3 * LOOK_SECONDS
"""From the other network's confirmation until the key signs. By then every process there has reloaded its keys."""

LOOK_AGAIN_SECONDS = 0.5


@dataclass(frozen=True)
class Rotated:
    """The result of a rotation: key ids, and when key ``before`` retires."""

    before: str
    now: str
    retires_at: datetime
    resumed: bool
    """Whether an earlier run had begun it."""


@dataclass(frozen=True)
class Rotation:
    """One network's rotation. ``exchange`` is None in the request network, which waits to be called.

    ``overlap``: seconds for which the previous key stays trusted. ``patience``: seconds to wait for the other network.
    ``say`` is called with each step (its name, a sentence).
    """

    keys: LiveKeys
    exchange: KeyExchange | None
    overlap: float
    patience: float
    say: Callable[[str, str], None]

    async def run(self) -> Rotated:
        """Rotate, or complete what an earlier run began.

        Raises `Conflict` if another rotation runs or this directory's key was replaced elsewhere, `Unavailable` if the
        other network does not confirm in time, `ConfigurationError` if the directory is not writable.
        """
        async with one_at_a_time(self.keys.engine):
            await self.keys.refresh()
            signing, stored = self.keys.key_id, await self._stored()
            self._check(stored)
            waiting = successor(self.keys.directory)
            before = stored[signing].introduced_by if signing in stored else None
            if waiting is None and before is not None and before in stored and not _ends(stored[before]):
                self.say("found", f"key {signing} signs already; its rotation is completed")
                return await self._retire(before, signing, resumed=True)
            if waiting is None:
                new = await self._make()
            else:
                new = key_id_of(waiting)
                self.say("found", f"key {new} was made by an earlier run; its rotation continues")
            await self._announce(successor(self.keys.directory))
            await self._confirmed(new)
            promote_successor(self.keys.directory)
            await self.keys.refresh()
            self.say("switched", f"key {new} signs from now on; running processes see that within {LOOK_SECONDS:g} s")
            return await self._retire(signing, new, resumed=waiting is not None)

    async def _stored(self) -> dict[str, StoredKey]:
        async with self.keys.engine.connect() as connection:
            return await link_keys(connection)

    def _check(self, stored: dict[str, StoredKey]) -> None:
        signing = stored.get(self.keys.key_id)
        if signing is not None and _ends(signing):
            newer = [key.key_id for key in stored.values() if key.introduced_by == signing.key_id and not _ends(key)]
            raise Conflict(
                f"{self.keys.directory} still holds key {signing.key_id}, which was replaced by"
                f" {' or '.join(newer) or 'another'}: copy signing.pem from the machine where that was done"
            )

    async def _make(self) -> str:
        new = key_id_of(make_successor(self.keys.directory))
        self.say("made", f"key {new} is made; {self.keys.key_id} goes on signing")
        return new

    async def _announce(self, public: Ed25519PublicKey | None) -> None:
        """Store the successor and the key that vouches for it. The next key list contains both."""
        if public is None:
            raise Conflict(f"next.pem was removed from {self.keys.directory} meanwhile; rotate again")
        signing = self.keys.key_id
        async with self.keys.engine.begin() as connection:
            own = self.keys.signing.public_key().public_bytes_raw()
            await put_link_key(connection, signing, self.keys.network, own, None)
            await put_link_key(
                connection, key_id_of(public), self.keys.network, public.public_bytes_raw(), introduced_by=signing
            )
            await confirm_link_keys(connection, self.keys.network, [signing])

    async def _confirmed(self, new: str) -> None:
        """Wait until the other network trusts the successor and all its processes have reloaded their keys."""
        until, told = time.monotonic() + self.patience, False
        while True:
            trouble = await self._exchange_lists()
            if (await self._stored())[new].confirmed_at:
                break
            if time.monotonic() > until:
                raise Unavailable(
                    f"the other network has not confirmed key {new} within {self.patience:g} s"
                    f" ({trouble or 'is the worker of the response network running?'});"
                    f" {self.keys.key_id} goes on signing, run the same command again to continue"
                )
            if not told:
                told = True
                self.say("waiting", trouble or f"for the response network, which asks every {TELL_SECONDS:g} s")
            await asyncio.sleep(LOOK_AGAIN_SECONDS)
        self.say("confirmed", f"the other network trusts key {new}")
        async with self.keys.engine.connect() as connection:
            since_confirmed = await seconds_since_confirmed(connection, new)
        await asyncio.sleep(SETTLE_SECONDS - since_confirmed)

    async def _retire(self, before: str, now: str, resumed: bool) -> Rotated:
        async with self.keys.engine.begin() as connection:
            retires_at = await retire_after(connection, before, self.overlap)
        self.say("retiring", f"key {before} stays trusted until {retires_at:%Y-%m-%d %H:%M:%S}Z")
        if trouble := await self._exchange_lists():
            self.say("untold", f"{trouble}; the worker tells the other network when it can")
        return Rotated(before, now, retires_at, resumed)

    async def _exchange_lists(self) -> str:
        """Exchange key lists, if this network opens connections. Returns what went wrong, empty if nothing."""
        if self.exchange is None:
            return ""
        try:
            await self.exchange.once()
        except LinkUnavailable as error:
            return str(error)
        except LinkError as error:
            return f"the other network refuses: {error}"
        return ""


@asynccontextmanager
async def one_at_a_time(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold the lock for rotations; it also ends with the process. Raises `Conflict` if another rotation holds it."""
    async with autocommit(engine) as connection:
        if not await try_lock_rotation(connection):
            raise Conflict("another rotation of this network's key is under way")
        try:
            yield
        finally:
            await unlock_rotation(connection)


def _ends(key: StoredKey) -> bool:
    return key.retires_at is not None or key.revoked_at is not None
