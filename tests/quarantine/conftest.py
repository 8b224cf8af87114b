"""Both networks, emptied before each test, the activities that apply, and each network's quarantine."""

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from pydantic import SecretStr
from temporalio.testing import ActivityEnvironment

from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from cache.redis_cache import Cache
from exchange.audit.auditor import Auditor
from exchange.recovery.quarantine import Quarantine
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from models.streams import BatchRef, Network, StreamName
from storage.notices import NotificationListener
from tests.activities import functions
from tests.activities.crossing import LINK
from tests.activities.residents import apply, attend_briefly
from tests.conftest import Networks, Servers, Side
from tests.exchange.kept_networks import empty, make_networks

MODULE = "tests.activities.functions"


@pytest.fixture(scope="session")
async def quarantine_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("quarantine") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(quarantine_networks: Networks) -> Networks:
    """Empty."""
    await empty(quarantine_networks)
    return quarantine_networks


@dataclass
class World:
    """Both networks as their workers and an operator have them."""

    networks: Networks
    importing: ImportActivities
    executing: ExecutionActivities

    def quarantine(self, network: Network) -> Quarantine:
        return Quarantine(self.side(network).engine, network)

    def side(self, network: Network) -> Side:
        return self.networks.request if network is Network.REQUEST else self.networks.response

    async def apply(self, *batches: BatchRef) -> None:
        """As `ImportBatch` and `ExecuteRequests` do."""
        for batch in batches:
            if batch.stream is StreamName.REQUESTS:
                await ActivityEnvironment().run(self.executing.execute_batches, batch)
            else:
                await apply(self.networks.request, self.importing, batch)

    async def count_in_receipt(self, stream: StreamName) -> int:
        """What the sender is told."""
        side = self.side(stream.receiver)
        async with side.engine.begin() as connection:
            return (await Receiver(side.engine, side.keys, LINK).receipt(connection, stream)).quarantined

    async def audit(self, stream: StreamName) -> tuple[int, int, int]:
        """What verifying finds at the receiver: records that agree, that are set aside, and findings."""
        auditor = Auditor(self.side(stream.receiver).engine, stream.receiver, 604_800)
        head = await auditor.head(stream)
        audit = await auditor.audit(stream, head.epoch, 1, head.sequence)
        return audit.agree, audit.quarantined, len(audit.findings)


@pytest.fixture
async def world(networks: Networks, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """With a request type ``rows``."""
    attend_briefly(monkeypatch)
    functions.reset()
    cache = Cache(networks.servers.redis_url)
    executors = Executors(
        SqlSources({"data": SecretStr(networks.response.url)}, 2), HttpCalls([]), PythonFunctions([MODULE]), cache
    )
    async with networks.response.engine.begin() as connection:
        executor = {"kind": "python", "function": f"{MODULE}:rows"}
        await put_request_type(connection, "rows", "", {"type": "object"}, {}, executor, "test")

    side = networks.response
    yield World(
        networks,
        ImportActivities(networks.request.engine, NotificationListener()),
        ExecutionActivities(side.engine, Sealer(side.keys, LINK), executors, 4),
    )
    await executors.aclose()
    await cache.aclose()
