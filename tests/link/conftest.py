"""The link over real HTTP: the request network's app, served once; between it and the response network a proxy."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from exchange.carriers.http import LinkClient
from exchange.transfer.delivery import Delivery
from exchange.transfer.incoming import IncomingStream, incoming_stream
from exchange.transfer.outgoing import OutgoingStream, outgoing_stream
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import unpack
from exchange.wire.http_signature import HttpSigner
from exchange.wire.manifest import Manifest
from models.outcomes import DrainOutcome
from models.streams import StreamName
from storage.database import rows
from tests.api_request.proxy import Proxy, proxied
from tests.api_request.serving import serving, settings_for
from tests.conftest import Networks, Servers, Side
from tests.exchange.kept_networks import empty, make_networks

TIMEOUT = 2.0
"""Seconds that a call over the link may take here, should the proxy hold it up."""


@dataclass(frozen=True)
class Crossing:
    """Both networks, joined by a link whose bytes pass a proxy."""

    networks: Networks
    proxy: Proxy
    url: str
    """The app itself, past the proxy."""
    client: LinkClient

    @property
    def delivery(self) -> Delivery:
        response = self.networks.response
        return Delivery(response.engine, Sealer(response.keys, "test"), self.client)

    @property
    def pull(self) -> Pull:
        response = self.networks.response
        return Pull(response.engine, Receiver(response.engine, response.keys, "test"), self.client)

    def signer(self) -> HttpSigner:
        return HttpSigner(self.networks.response.keys, "test")

    async def enqueue(self, stream: StreamName, *bodies: bytes) -> None:
        async with self.networks.response.engine.begin() as connection:
            await self.delivery.sealer.enqueue(connection, stream, bodies)

    async def drain(self, stream: StreamName = StreamName.RESULTS) -> DrainOutcome:
        return await self.delivery.drain(stream, lambda _: None)

    async def sender(self, stream: StreamName = StreamName.RESULTS) -> OutgoingStream:
        side = self.networks.request if stream is StreamName.REQUESTS else self.networks.response
        async with side.engine.begin() as connection:
            return await outgoing_stream(connection, stream)

    async def receiver(self, stream: StreamName = StreamName.RESULTS) -> IncomingStream:
        async with self.receiving(stream).engine.begin() as connection:
            return await incoming_stream(connection, stream)

    async def arrived(self, stream: StreamName = StreamName.RESULTS) -> list[bytes]:
        """Every record that is stored on the other side, in the order of the batches."""
        async with self.receiving(stream).engine.connect() as connection:
            found = await rows(
                connection,
                "SELECT manifest, payload FROM received_batches WHERE stream = :stream ORDER BY sequence",
                stream=stream,
            )
        return [
            record for manifest, payload in found for record in unpack(Manifest.model_validate_json(manifest), payload)
        ]

    def receiving(self, stream: StreamName) -> Side:
        return self.networks.response if stream is StreamName.REQUESTS else self.networks.request


@pytest.fixture(scope="session")
async def kept_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("link") / "keys") as networks:
        yield networks


@pytest.fixture(scope="session")
async def app_url(kept_networks: Networks) -> AsyncIterator[str]:
    """The app, served once."""
    async with serving(settings_for(kept_networks, redis_database=6)) as url:
        yield url


@pytest.fixture(scope="session")
async def kept_proxy(app_url: str) -> AsyncIterator[Proxy]:
    """Made once."""
    async with proxied("127.0.0.1", int(app_url.rsplit(":", 1)[1])) as proxy:
        yield proxy


@pytest.fixture
async def crossing(kept_networks: Networks, app_url: str, kept_proxy: Proxy) -> AsyncIterator[Crossing]:
    """Empty streams and a network that works."""
    kept_proxy.heal()
    await empty(kept_networks)
    client = LinkClient(kept_proxy.url, HttpSigner(kept_networks.response.keys, "test"), TIMEOUT)
    try:
        yield Crossing(kept_networks, kept_proxy, app_url, client)
    finally:
        kept_proxy.heal()
        await client.aclose()
