"""The request network's worker: applies batches and follows requests. It has no schedules."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import httpx
from temporalio.runtime import Runtime
from temporalio.worker import Worker

from activities.fulfilling import FulfilmentActivities
from activities.importing import ImportActivities
from activities.maintaining import MaintenanceActivities
from cache.redis_cache import Cache
from configuration.settings import RequestSettings
from exchange.link_keys.live_keys import LiveKeys
from fulfilment.callbacks import CallbackSender
from models.streams import Network
from monitoring.waiting import WaitingWatch
from monitoring.workflow_watch import WorkflowWatch
from orchestration.client import connect_temporal
from orchestration.workers import ensure_search_attributes, identity, make_worker, start_background_task
from storage.database import connect, listen
from storage.notices import NotificationListener
from workflows.fulfilment import FulfillRequests
from workflows.importing import ImportBatch

BOUNDS: dict[str, timedelta | None] = {
    "ImportBatch": None,  # it lasts as long as results come
    "FulfillRequests": None,  # it lasts until the latest deadline of its requests
}
"""How long a run may last until an alert is raised."""


@asynccontextmanager
async def request_worker(settings: RequestSettings, runtime: Runtime) -> AsyncIterator[Worker]:
    """A worker that is ready to run."""
    client = await connect_temporal(settings, runtime, identity=identity(Network.REQUEST))
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        engine = connect(url, settings.database_connections, "airlock-request-worker")
        stack.push_async_callback(engine.dispose)
        keys = LiveKeys(engine, Network.REQUEST, settings.keys)
        cache = Cache(settings.redis_url.get_secret_value())
        stack.push_async_callback(cache.aclose)
        http = httpx.AsyncClient(follow_redirects=False, trust_env=False)
        stack.push_async_callback(http.aclose)

        listener = NotificationListener()
        importing = ImportActivities(engine, listener)
        sender = CallbackSender(engine, keys, settings.callback_private_addresses, settings.callback_give_up, http)
        stack.callback(sender.close)
        fulfilment = FulfilmentActivities(engine, sender, listener)
        maintenance = MaintenanceActivities(Network.REQUEST, engine, cache, settings.retention)
        await ensure_search_attributes(client)
        start_background_task(stack, keys.keep_current())
        start_background_task(stack, listen(url, listener.hear, listener.connected, "airlock-request-worker"))
        start_background_task(stack, WorkflowWatch(client, engine, BOUNDS).run())
        start_background_task(stack, WaitingWatch(engine, Network.REQUEST, settings.waiting_alert).run())
        yield make_worker(
            client,
            settings,
            [ImportBatch, FulfillRequests],
            [
                importing.apply_and_attend,
                fulfilment.settle_groups,
                fulfilment.make_callbacks,
                maintenance.tend,
            ],
        )
