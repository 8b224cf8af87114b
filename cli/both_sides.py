"""Access to both networks from a command: the own database, and the request network over the link."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from cli.errors import database_of

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings, ResponseSettings
    from exchange.carriers.http import LinkClient
    from exchange.recovery.local_side import LocalSide
    from exchange.recovery.remote_side import RemoteSide
    from exchange.wire.keys import LinkKeys

LINK_PATIENCE = 60.0
"""Least timeout in seconds of an answer over the link: the audit of a range of batches takes long."""


@asynccontextmanager
async def own_side(settings: "NetworkSettings") -> "AsyncIterator[LocalSide]":
    """This network's own end. Raises `Unavailable` or `ConfigurationError`."""
    from exchange.link_keys.live_keys import current_keys
    from exchange.recovery.local_side import LocalSide

    async with database_of(settings) as engine:
        async with engine.connect() as connection:
            keys = await current_keys(connection, settings.network, settings.keys)
        yield LocalSide(engine, settings.network, settings.retention, keys)


@asynccontextmanager
async def link_client(settings: "ResponseSettings", keys: "LinkKeys", timeout: float) -> "AsyncIterator[LinkClient]":
    """A client of the link. ``timeout`` in seconds."""
    from exchange.carriers.http import LinkClient, client_tls
    from exchange.wire.http_signature import HttpSigner

    signer = HttpSigner(keys, settings.link_id, settings.clock_skew)
    link = LinkClient(settings.link_url, signer, timeout, client_tls(settings))
    try:
        yield link
    finally:
        await link.aclose()


@asynccontextmanager
async def both_sides() -> "AsyncIterator[tuple[ResponseSettings, LocalSide, RemoteSide]]":
    """The response network's own end, and the request network's over the signed link."""
    from configuration.settings import ResponseSettings
    from exchange.recovery.remote_side import RemoteSide

    settings = ResponseSettings.load()
    async with (
        own_side(settings) as local,
        link_client(settings, local.keys, max(settings.link_timeout, LINK_PATIENCE)) as link,
    ):
        yield settings, local, RemoteSide(link)
