"""Both networks of a protocol test: the real sender and receiver on real databases, and what a test may do to them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.testing import ActivityEnvironment

from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from api.problems import install_problems
from api.request import link_routes
from api.request.link_health import Refusals
from cache.redis_cache import Cache
from exchange.errors import BadSignature, ClockSkew, LinkPaused, LinkUnavailable, UnknownKey
from exchange.transfer import sealing
from exchange.transfer.delivery import Delivery
from exchange.transfer.incoming import unapplied
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from exchange.wire.messages import Receipt
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.sql import SqlSources
from fulfilment.waiters import Broadcast
from models.streams import BatchRef, Network, StreamName
from monitoring.retention import empty_batches
from storage.notices import NotificationListener
from tests.activities.residents import apply, attend_briefly
from tests.conftest import Networks, Servers, Side
from tests.exchange.kept_networks import make_networks
from tests.protocol.clocks import Clocks
from tests.protocol.commits import Commits, Crash, CrashPlan
from tests.protocol.network import Fault, SimulatedLink, SimulatedNetwork
from tests.protocol.seen import Looking, Seen, begin_anew, let_go_on, look, somebody_waits

LINK = "test"
RECORDS_PER_BATCH = 3
"""Small, so that a few records make several batches."""
END_OF_TIME = 2**40
SECONDS = 30.0
"""Longer than anything that a rule does could take; whatever takes longer hangs."""
WEATHER = (LinkUnavailable, LinkPaused, BadSignature, ClockSkew, UnknownKey)
"""What a caller is told when the network, or a clock, is bad. Nothing else may come of that."""
Work = Callable[[], Awaitable[object]]


class Dispatcher:
    """Stands for the one that starts workflows: the test applies batches when it likes."""

    def start_import(self, _: BatchRef) -> None:
        pass


@dataclass
class World:
    """One pair of networks, used by one machine at a time."""

    loop: asyncio.AbstractEventLoop
    engines: dict[Network, AsyncEngine]
    commits: dict[Network, Commits]
    connections: dict[Network, Looking]
    clocks: Clocks
    network: SimulatedNetwork
    link: SimulatedLink
    sealers: dict[Network, Sealer]
    receivers: dict[Network, Receiver]
    sides: dict[Network, Side]
    importing: ImportActivities
    executing: ExecutionActivities
    heard: list[Receipt] = field(default_factory=list)
    """Receipts that the sender got as an answer."""
    failures: list[BaseException] = field(default_factory=list)
    """What made examples fail."""

    @property
    def delivery(self) -> Delivery:
        return Delivery(self.engines[Network.RESPONSE], self.sealers[Network.RESPONSE], self.link)

    @property
    def pull(self) -> Pull:
        return Pull(self.engines[Network.RESPONSE], self.receivers[Network.RESPONSE], self.link)

    def run(self, work: Awaitable[Any]) -> Any:
        """Do this on the loop that owns the connections, and wait for it, from the thread of a state machine."""

        async def whole() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(whole(), self.loop).result(SECONDS)

    async def begin(self, stream: StreamName) -> None:
        """Nothing has happened yet."""
        self.heal()
        self.network.forget()
        self.heard.clear()
        await begin_anew(self.connections, stream)

    def heal(self) -> None:
        """The network works, the clocks are right, nobody dies."""
        self.network.plan([])
        self.clocks.heal()
        for commits in self.commits.values():
            commits.crash_at(None)
            commits.release()

    async def look(self, stream: StreamName) -> Seen:
        return await look(self.connections, stream)

    async def resume(self, stream: StreamName) -> None:
        await let_go_on(self.connections, stream)

    # What the two networks do of themselves. Each may be crashed at any commit, and done again.

    async def drain(self, stream: StreamName) -> None:
        await self.delivery.drain(stream, lambda _: None)

    async def poll(self, stream: StreamName) -> bool:
        """Pull one batch; whether one came."""
        return await self.pull.once(stream, 0) is not None

    async def confirm(self, stream: StreamName) -> None:
        await self.pull.confirm(stream)

    async def seal_pending(self, stream: StreamName) -> None:
        with self.clocks.of(stream.sender):
            async with self.engines[stream.sender].begin() as connection:
                await self.sealers[stream.sender].seal_pending(connection, stream)

    async def import_batches(self, stream: StreamName) -> None:
        newest = BatchRef(stream=stream, epoch=END_OF_TIME, sequence=0)
        await apply(self.sides[Network.REQUEST], self.importing, newest)

    async def execute_batches(self) -> None:
        async with self.engines[Network.RESPONSE].connect() as connection:
            waiting = await unapplied(connection, StreamName.REQUESTS)
        for batch in waiting:
            await ActivityEnvironment().run(self.executing.execute_batches, batch)

    async def retain_nothing(self, network: Network) -> None:
        """Apply retention as if it were no time at all."""
        async with self.engines[network].begin() as connection:
            await empty_batches(connection, 0)

    # What happens to them.

    async def attempt(
        self, work: Work, faults: Sequence[Fault] = (), crash: tuple[Network, CrashPlan] | None = None
    ) -> Exception | None:
        """Do something in bad weather, and perhaps die of it; gives what it ended with. Anything but the weather and
        our own crash is raised, and so is a refusal on a fine day.
        """
        self.network.plan(faults)
        fine = crash is None and self.clocks.apart < 250
        crashes = sum(commits.crashed for commits in self.commits.values())
        if crash is not None:
            self.commits[crash[0]].crash_at(crash[1])
        ended: Exception | None = None
        try:
            await work()
        except (Crash, *WEATHER) as error:
            ended = error
        finally:
            faults_happened = self.network.faults
            self.network.plan([])
            for commits in self.commits.values():
                commits.crash_at(None)
        crashes = sum(commits.crashed for commits in self.commits.values()) - crashes
        broken = self._broken()
        assert len(broken) <= crashes, f"the request network broke by itself: {broken}"
        assert ended is None or not fine or faults_happened, f"on a fine day a call ended with {ended!r}"
        return ended

    async def overlap(self, first: Work, network: Network, nth: int, second: Work) -> None:
        """Begin ``first`` and hold its ``nth`` commit in ``network`` up; do ``second`` until it is done or waits for a
        lock; then let both go on. Neither may fail.
        """
        held = self.commits[network].hold_at(nth)
        one: asyncio.Future[object] = asyncio.ensure_future(first())
        reached = asyncio.ensure_future(held.reached.wait())
        tasks = [one]
        try:
            await asyncio.wait((one, reached), return_when=asyncio.FIRST_COMPLETED)
            if one.done():
                self.commits[network].release()  # it did not come so far: then one after the other
            other: asyncio.Future[object] = asyncio.ensure_future(second())
            tasks.append(other)
            while not other.done() and not await somebody_waits(self.connections):
                await asyncio.wait((other,), timeout=0.001)
        finally:
            self.commits[network].release()
            reached.cancel()
            await asyncio.wait(tasks)
        broken = self._broken()
        assert not broken, f"two at the same time broke the request network: {broken}"
        for task in tasks:
            task.result()

    def _broken(self) -> list[str]:
        broken = list(self.network.broken)
        self.network.broken.clear()
        return broken


class ListeningLink(SimulatedLink):
    """Notes the receipts that its caller gets."""

    heard: list[Receipt]

    def _receipt(self, stream: StreamName, body: bytes) -> Receipt:
        receipt = super()._receipt(stream, body)
        self.heard.append(receipt)
        return receipt


@asynccontextmanager
async def open_world(servers: Servers, root: Path) -> AsyncIterator[World]:
    """Databases, keys, the link's routes as an app, and a client whose calls go there through the simulated network."""
    async with AsyncExitStack() as stack:
        networks = await stack.enter_async_context(make_networks(servers, root))
        logging.disable(logging.CRITICAL)  # thousands of refusals and crashes, all of them on purpose
        stack.callback(logging.disable, logging.NOTSET)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        clocks = Clocks()
        clocks.install(patch)
        attend_briefly(patch)
        patch.setattr(sealing, "MAX_RECORDS", RECORDS_PER_BATCH)
        sides = {side.network: side for side in (networks.request, networks.response)}
        engines = {name: side.engine for name, side in sides.items()}
        commits = {name: Commits(engine) for name, engine in engines.items()}
        for commit in commits.values():
            stack.callback(commit.restore)
        connections = {
            name: await stack.enter_async_context(
                asyncpg.create_pool(side.url, min_size=1, max_size=3, reset=_as_it_is)
            )
            for name, side in sides.items()
        }
        sealers = {name: Sealer(side.keys, LINK) for name, side in sides.items()}
        receivers = {name: Receiver(side.engine, side.keys, LINK) for name, side in sides.items()}
        network = SimulatedNetwork(_app(networks, sealers, receivers), clocks)
        link = ListeningLink(network, HttpSigner(networks.response.keys, LINK))
        link.heard = []
        stack.push_async_callback(link.aclose)
        cache = Cache(servers.redis_url)
        stack.push_async_callback(cache.aclose)
        executors = Executors(SqlSources({}, 1), HttpCalls([]), PythonFunctions([]), cache)
        stack.push_async_callback(executors.aclose)
        yield World(
            asyncio.get_running_loop(), engines, commits, connections, clocks, network, link, sealers, receivers,
            sides, ImportActivities(engines[Network.REQUEST], NotificationListener()),
            ExecutionActivities(engines[Network.RESPONSE], sealers[Network.RESPONSE], executors, 8),
            link.heard,
        )  # fmt: skip


async def _as_it_is(_: object) -> None:
    """A connection that only looks leaves nothing behind to be undone."""


async def _nothing_new() -> None:
    """Nobody introduces keys here."""


def _app(networks: Networks, sealers: dict[Network, Sealer], receivers: dict[Network, Receiver]) -> FastAPI:
    """The request network's link routes, with just the services that they use."""
    side = networks.request
    app = FastAPI()
    install_problems(app)
    app.include_router(link_routes.router)
    app.state.services = SimpleNamespace(
        settings=SimpleNamespace(link_id=LINK),
        engine=side.engine,
        sealer=sealers[Network.REQUEST],
        receiver=receivers[Network.REQUEST],
        keys=SimpleNamespace(refresh=_nothing_new),
        signer=HttpSigner(side.keys, LINK),
        refusals=Refusals(),
        dispatcher=Dispatcher(),
        sealed=Broadcast(),
        stopping=asyncio.Event(),
    )
    return app
