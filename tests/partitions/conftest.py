"""Both networks, empty when a test begins, with an app between them that spreads requests over four partitions."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from cache.redis_cache import Cache
from exchange.delivery import Delivery
from exchange.http_signature import HttpSigner
from exchange.link import LinkClient
from exchange.pulling import Pull
from exchange.receiving import Receiver
from exchange.sealing import Sealer
from executors.http import HttpCalls
from executors.python import PythonFunctions
from executors.registry import Executors
from executors.sql import SqlSources
from storage.catalog import put_request_type
from tests.activities.crossing import LINK
from tests.activities.standing_in import Told
from tests.api_request.serving import publish, request_type, serving, settings_for
from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks
from tests.partitions.world import USERS, PartitionedWorld
from tests.verification.world import RETENTION

MODULE = "tests.activities.functions"


@pytest.fixture(scope="session")
async def kept(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("partitions") / "keys", 20) as networks:
        yield networks


@pytest.fixture
async def both(kept: Networks) -> Networks:
    """With the users known in the request network, and what they ask for in the response network."""
    await empty(kept)
    await publish(kept, [request_type("rows"), *(user.record() for user in USERS)])
    async with kept.response.engine.begin() as connection:
        executor = {"kind": "python", "function": f"{MODULE}:rows"}
        await put_request_type(connection, "rows", "", {"type": "object"}, {}, executor, "test")
    return kept


@pytest.fixture
def another_app(both: Networks) -> Callable[[int], AbstractAsyncContextManager[str]]:
    """The app of the request network with so many partitions; its URL."""
    return lambda partitions: serving(settings_for(both, retention=RETENTION, partitions=partitions))


@pytest.fixture
async def world(
    both: Networks, another_app: Callable[[int], AbstractAsyncContextManager[str]]
) -> AsyncIterator[PartitionedWorld]:
    side = both.response

    async def announce() -> None:
        pass

    async with another_app(4) as url:
        link = LinkClient(url, HttpSigner(side.keys, LINK))
        cache = Cache(both.servers.redis_url)
        executors = Executors(SqlSources({}, 2), HttpCalls([]), PythonFunctions([MODULE]), cache)
        sealer = Sealer(side.keys, LINK)
        executing = [
            ExecutionActivities(side.engine, sealer, executors, 1, announce, partitions) for partitions in range(1, 9)
        ]
        world = PartitionedWorld(
            both,
            link,
            Pull(side.engine, Receiver(side.engine, side.keys, LINK), link),
            Delivery(side.engine, sealer, link),
            executing[0],
            ImportActivities(both.request.engine, cache, 60, Told()),
            url,
            executing,
        )
        await world.respread(4)
        yield world
        await link.aclose()
        await executors.aclose()
        await cache.aclose()
