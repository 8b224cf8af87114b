"""The services of the request network's API, and its background tasks."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from api.request.dispatching import Dispatcher
from api.request.link_health import Refusals
from cache.redis_cache import Cache
from configuration.settings import RequestSettings
from exchange.link_keys.live_keys import LiveKeys
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.derived_secret import derived_secret
from exchange.wire.http_signature import HttpSigner
from fulfilment.catalog import CurrentCatalog
from fulfilment.first_reads import FirstReads
from fulfilment.group_commit import GroupCommit
from fulfilment.waiters import Broadcast, FinishedRequests
from models.streams import Network, StreamName
from monitoring.waiting import WaitingWatch
from orchestration.client import connect_temporal, sdk_runtime
from storage.database import Ask, connect, listen

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Services:
    """The open services that routes use."""

    settings: RequestSettings
    engine: AsyncEngine
    cache: Cache
    catalog: CurrentCatalog
    sealer: Sealer
    receiver: Receiver
    keys: LiveKeys
    signer: HttpSigner
    temporal: Client
    dispatcher: Dispatcher
    group_commit: GroupCommit
    finished: FinishedRequests
    first_reads: FirstReads
    sealed: Broadcast
    """Sent when a batch of requests was sealed."""
    stopping: asyncio.Event
    """Set when the server stops."""
    refusals: Refusals = field(default_factory=Refusals)

    def end_long_polls(self) -> None:
        """Answer all waiting calls now, since the server stops."""
        self.stopping.set()
        self.sealed.send()
        self.finished.wake_all()

    def hear(self, message: str) -> None:
        """Handle a notice of the database."""
        topic, _, rest = message.partition(" ")
        if topic == "finished":
            self.finished.something_finished()
        elif topic == "sealed" and rest == StreamName.REQUESTS:
            self.sealed.send()
        elif topic == "snapshot" and rest == "settings":
            self.catalog.changed()

    def connected(self, ask: Ask | None) -> None:
        """The connection for notices was made or lost. Look at everything once, since notices may be missing."""
        self.finished.listening = self.catalog.listening = ask is not None
        self.catalog.changed()
        self.finished.something_finished()
        self.sealed.send()


@asynccontextmanager
async def open_services(settings: RequestSettings) -> AsyncIterator[Services]:
    """Open the services and start the background tasks; end both in reverse. Temporal and Redis need not answer yet."""
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        engine = connect(url, settings.database_connections, "airlock-request-api")
        stack.push_async_callback(engine.dispose)
        keys = LiveKeys(engine, Network.REQUEST, settings.keys)
        cache = Cache(settings.redis_url.get_secret_value(), lambda: derived_secret(keys, "cache"))
        stack.push_async_callback(cache.aclose)
        sealer = Sealer(keys, settings.link_id)
        # ERROR: the dispatcher logs once that Temporal is away.
        temporal = await connect_temporal(settings, sdk_runtime("ERROR"), lazy=True, identity="request-api")
        dispatcher = Dispatcher(engine, temporal)
        stack.push_async_callback(dispatcher.finish)
        services = Services(
            settings,
            engine,
            cache,
            CurrentCatalog(engine),
            sealer,
            Receiver(engine, keys, settings.link_id),
            keys,
            HttpSigner(keys, settings.link_id, settings.clock_skew),
            temporal,
            dispatcher,
            GroupCommit(engine, sealer, dispatcher.group_committed),
            FinishedRequests(engine, cache, settings.result_cache_seconds),
            FirstReads(engine),
            Broadcast(),
            asyncio.Event(),
        )
        for task in (
            listen(url, services.hear, services.connected, "airlock-request-api"),
            services.finished.run(),
            services.first_reads.run(),
            services.group_commit.run(),
            dispatcher.run(),
            keys.keep_current(),
            WaitingWatch(engine, Network.REQUEST, settings.waiting_alert).run(),  # also while no worker runs
        ):
            stack.push_async_callback(_stop, _start(task))
        yield services


def _start(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    task = asyncio.create_task(work)
    task.add_done_callback(_end_if_failed)
    return task


async def _stop(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))


def _end_if_failed(task: "asyncio.Task[None]") -> None:
    """A background task failed: end the process, so that its supervisor starts a new one."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("api.task_broke", exc_info=error)
        asyncio.get_running_loop().call_soon(_end, error)


def _end(error: BaseException) -> None:
    raise SystemExit(1) from error
