"""Telling the request network our keys and hearing its: done by the response network, which opens every connection."""

import asyncio

import structlog
from sqlalchemy.exc import DBAPIError

from configuration.logs import OutageLog
from exchange.carriers.http import LinkClient
from exchange.errors import LinkError, LinkUnavailable, Malformed
from exchange.link_keys.lists import KeyList, key_list, take_key_list
from exchange.link_keys.live_keys import LiveKeys
from storage.database import UNREACHABLE

log = structlog.get_logger(__name__)

TELL_SECONDS = 15.0
"""How often the worker tells and hears: how long the request network's rotation waits for us."""

ROUNDS = 3
"""What we hear, we confirm at once; that ends after two rounds unless keys change meanwhile."""


class KeyExchange:
    """Safe to run twice, even at the same time: it says what is so, and takes over what is new."""

    def __init__(self, keys: LiveKeys, link: LinkClient, link_id: str) -> None:
        self.keys = keys
        self._link = link
        self._link_id = link_id

    async def once(self) -> None:
        """Both sides know each other's keys when this returns. Raises `LinkError`."""
        await self.keys.refresh()
        for _ in range(ROUNDS):
            async with self.keys.engine.connect() as connection:
                ours = await key_list(connection, self.keys, self._link_id)
            answer = await self._link.exchange_keys(ours.to_wire(self.keys))
            theirs = KeyList.from_wire(self.keys, answer)
            async with self.keys.engine.begin() as connection:
                changed = await take_key_list(connection, self.keys, self._link_id, theirs)
            await self.keys.refresh()
            if not changed:
                return
        raise Malformed("the request network's keys change without end")

    async def run(self) -> None:
        """Every `TELL_SECONDS`, for ever. What keeps failing is logged once; others alarm of a dead link."""
        outage = OutageLog("keys.not_exchanged", "keys.exchanged", log)
        while True:
            try:
                await self.once()
                outage.succeeded()
            except (LinkError, DBAPIError, OSError, *UNREACHABLE) as error:
                passes = not isinstance(error, LinkError) or isinstance(error, LinkUnavailable)
                outage.failed(error, passes, again_in=TELL_SECONDS)
            await asyncio.sleep(TELL_SECONDS)
