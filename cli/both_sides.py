"""Both networks as a command of the response network reaches them: its own database, and the other over the link."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from cli.errors import database_of

if TYPE_CHECKING:
    from configuration.settings import NetworkSettings, ResponseSettings
    from exchange.recovery.local_side import LocalSide
    from exchange.recovery.remote_side import RemoteSide

LINK_PATIENCE = 60.0
"""Seconds for one answer over the link, at least: auditing a range of batches takes its time."""


@asynccontextmanager
async def own_side(settings: "NetworkSettings") -> "AsyncIterator[LocalSide]":
    """This network's own end. Raises `Unavailable` or `ConfigurationError` that names what is away."""
    from exchange.link_keys.live_keys import keys_seen_by
    from exchange.recovery.local_side import LocalSide

    async with database_of(settings) as engine:
        async with engine.connect() as connection:
            keys = await keys_seen_by(connection, settings.network, settings.keys)
        yield LocalSide(engine, settings.network, settings.retention, keys)


@asynccontextmanager
async def both_sides() -> "AsyncIterator[tuple[ResponseSettings, LocalSide, RemoteSide]]":
    """The response network's own end and the request network's, over the signed link."""
    from configuration.settings import ResponseSettings
    from exchange.carriers.http import LinkClient
    from exchange.carriers.http_tls import client_tls
    from exchange.recovery.remote_side import RemoteSide
    from exchange.wire.http_signature import HttpSigner

    settings = ResponseSettings.load()
    async with AsyncExitStack() as stack:
        near = await stack.enter_async_context(own_side(settings))
        signer = HttpSigner(near.keys, settings.link_id, settings.clock_skew)
        link = LinkClient(settings.link_url, signer, max(settings.link_timeout, LINK_PATIENCE), client_tls(settings))
        stack.push_async_callback(link.aclose)
        yield settings, near, RemoteSide(link)
