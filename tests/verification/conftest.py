"""Both networks with the served app between them; empty when a test begins."""

from collections.abc import AsyncIterator

import pytest

from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from cache.redis_cache import Cache
from exchange.carriers.http import LinkClient
from exchange.transfer.delivery import Delivery
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from storage.notices import NotificationListener
from tests.activities.crossing import LINK
from tests.activities.residents import attend_briefly
from tests.api_request.serving import serving, settings_for
from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks
from tests.verification.world import RETENTION, World

MODULE = "tests.activities.functions"


@pytest.fixture(scope="session")
async def verification_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("verification") / "keys") as networks:
        yield networks


@pytest.fixture(scope="session")
async def served(verification_networks: Networks) -> AsyncIterator[str]:
    """The request network's app, served once."""
    async with serving(settings_for(verification_networks, retention=RETENTION)) as url:
        yield url


@pytest.fixture
async def world(verification_networks: Networks, served: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    attend_briefly(monkeypatch)
    networks = verification_networks
    await empty(networks)
    side = networks.response
    link = LinkClient(served, HttpSigner(side.keys, LINK))
    cache = Cache(networks.servers.redis_url)
    executors = Executors(SqlSources({}, 2), HttpCalls([]), PythonFunctions([MODULE]), cache)
    async with side.engine.begin() as connection:
        executor = {"kind": "python", "function": f"{MODULE}:rows"}
        await put_request_type(connection, "rows", "", {"type": "object"}, {}, executor, "test")

    sealer = Sealer(side.keys, LINK)
    yield World(
        networks,
        link,
        Pull(side.engine, Receiver(side.engine, side.keys, LINK), link),
        Delivery(side.engine, sealer, link),
        ExecutionActivities(side.engine, sealer, executors, 8),
        ImportActivities(networks.request.engine, NotificationListener()),
        served,
    )
    await link.aclose()
    await executors.aclose()
    await cache.aclose()
