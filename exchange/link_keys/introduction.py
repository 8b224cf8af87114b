"""Exchanging key lists with the request network. The response network calls, since it opens every connection."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from configuration.logs import OutageLog
from exchange.carriers.http import LinkClient
from exchange.errors import LinkError, LinkUnavailable, Malformed
from exchange.link_keys.lists import KeyList, key_list, take_key_list
from exchange.link_keys.live_keys import LiveKeys
from storage.database import UNREACHABLE

log = structlog.get_logger(__name__)

TELL_SECONDS = 15.0
"""How often the worker exchanges key lists. A rotation in the request network waits up to this long."""

ROUNDS = 3
"""A round with news is followed by one that confirms it. Two are enough unless keys change meanwhile."""


Announce = Callable[[AsyncConnection], Awaitable[None]]


async def _nobody(_connection: AsyncConnection) -> None:
    """The default of `KeyExchange`."""


class KeyExchange:
    """Safe to run twice, even at the same time: it sends the present keys and stores only new ones."""

    def __init__(self, keys: LiveKeys, link: LinkClient, link_id: str, announce: Announce = _nobody) -> None:
        """``announce`` is called, in the transaction, after the other network has introduced or ended a key."""
        self.keys = keys
        self._link = link
        self._link_id = link_id
        self._announce = announce

    async def once(self) -> None:
        """Exchange lists until both sides know each other's keys. Raises `LinkError`."""
        await self.keys.refresh()
        for _ in range(ROUNDS):
            async with self.keys.engine.connect() as connection:
                ours = await key_list(connection, self.keys, self._link_id)
            answer = await self._link.exchange_keys(ours.to_wire(self.keys))
            theirs = self._link.opened(KeyList, answer)
            async with self.keys.engine.begin() as connection:
                changed = await take_key_list(connection, self.keys, self._link_id, theirs)
                if changed:
                    await self._announce(connection)
            await self.keys.refresh()
            if not changed:
                return
        raise Malformed("the request network's key list changes with every exchange")

    async def run(self) -> None:
        """Exchange lists every `TELL_SECONDS`, for ever. A lasting failure is logged once; monitoring alarms."""
        outage = OutageLog("keys.not_exchanged", "keys.exchanged", log)
        while True:
            try:
                await self.once()
                outage.succeeded()
            except (LinkError, DBAPIError, OSError, *UNREACHABLE) as error:
                passes = not isinstance(error, LinkError) or isinstance(error, LinkUnavailable)
                outage.failed(error, passes, again_in=TELL_SECONDS)
            await asyncio.sleep(TELL_SECONDS)
