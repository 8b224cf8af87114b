"""Both networks with keys that change, and the request network's API served once or twice over the same database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from exchange.carriers.http import LinkClient
from exchange.link_keys.introduction import KeyExchange
from exchange.link_keys.live_keys import LiveKeys
from exchange.link_keys.rotation import Rotated, Rotation
from exchange.link_keys.store import StoredKey, link_keys
from exchange.transfer.delivery import Delivery
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from exchange.wire.keys import LinkKeys
from models.streams import Network, StreamName
from tests.activities.crossing import LINK, change
from tests.conftest import Networks, Side


@dataclass
class World:
    """What two networks do about their keys, a step at a time."""

    networks: Networks
    urls: list[str]
    stack: AsyncExitStack
    steps: list[str] = field(default_factory=list)

    def side(self, network: Network) -> Side:
        return self.networks.request if network is Network.REQUEST else self.networks.response

    def live(self, network: Network) -> LiveKeys:
        """As a process that starts now holds them."""
        side = self.side(network)
        return LiveKeys(side.engine, network, side.keys_directory)

    def client(self, keys: LinkKeys, url: str = "") -> LinkClient:
        link = LinkClient(url or self.urls[0], HttpSigner(keys, LINK), 5)
        self.stack.push_async_callback(link.aclose)
        return link

    def exchange(self) -> KeyExchange:
        """What the response network's worker runs."""
        keys = self.live(Network.RESPONSE)
        return KeyExchange(keys, self.client(keys), LINK)

    async def rotate(self, network: Network, overlap: float = 3600, patience: float = 20) -> Rotated:
        """As the command does, in a process of its own."""
        keys = self.live(network)
        exchange = KeyExchange(keys, self.client(keys), LINK) if network is Network.RESPONSE else None
        self.steps.clear()
        return await Rotation(keys, exchange, overlap, patience, lambda step, _: self.steps.append(step)).run()

    async def push(self, keys: LinkKeys, record: bytes = b'{"n":1}', url: str = "") -> None:
        """Seal a batch with these keys and deliver it with them."""
        side = self.networks.response
        async with side.engine.begin() as connection:
            await Sealer(keys, LINK).seal(connection, StreamName.RESULTS, [record])
        await self.drain(keys, url)

    async def drain(self, keys: LinkKeys, url: str = "") -> None:
        delivery = Delivery(self.networks.response.engine, Sealer(keys, LINK), self.client(keys, url))
        await delivery.drain(StreamName.RESULTS, lambda _: None)

    async def pull(self, keys: LinkKeys, sealing: LinkKeys) -> bool:
        """Seal a batch of requests over there and take it in here."""
        async with self.networks.request.engine.begin() as connection:
            await Sealer(sealing, LINK).seal(connection, StreamName.REQUESTS, [b'{"n":1}'])
        engine = self.networks.response.engine
        pull = Pull(engine, Receiver(engine, keys, LINK), self.client(keys))
        return await pull.once(StreamName.REQUESTS, 0) is not None

    async def stored(self, network: Network) -> dict[str, StoredKey]:
        async with self.side(network).engine.connect() as connection:
            return await link_keys(connection)

    async def end_overlap(self, network: Network, key_id: str) -> None:
        """Have a key's overlap be over, as this network sees it."""
        past = datetime.now(UTC) - timedelta(seconds=1)
        statement = "UPDATE link_keys SET retires_at = :past WHERE key_id = :key_id"
        await change(self.side(network), statement, past=past, key_id=key_id)


@asynccontextmanager
async def opened(networks: Networks, *urls: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(networks, list(urls), stack)
