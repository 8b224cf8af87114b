"""The response network's worker: exports, monitoring, maintenance, pulling and executing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.runtime import Runtime
from temporalio.worker import Worker

from activities.executing import ExecutionActivities
from activities.maintaining import MaintenanceActivities
from activities.monitoring import MonitoringActivities
from activities.pulling import PullActivities
from activities.streams import StreamActivities
from cache.redis_cache import Cache
from configuration.cadences import EXPORT_RESULTS, Cadence
from configuration.settings import ResponseSettings
from configuration.timing import TASK_TIMEOUT
from exchange.carriers.http import LinkClient, client_tls
from exchange.link_keys.introduction import KeyExchange
from exchange.link_keys.live_keys import LiveKeys
from exchange.transfer.delivery import Delivery
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.derived_secret import derived_secret
from exchange.wire.http_signature import HttpSigner
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.sql import SqlSources
from models.outcomes import PullProgress
from models.streams import PULL_WORKFLOW_ID, BatchRef, Network, StreamName, named_by
from monitoring.key_alarms import announce_new_keys
from monitoring.link_watch import LinkWatch
from monitoring.temporal_state import TemporalState
from monitoring.waiting import WaitingWatch
from monitoring.workflow_watch import WorkflowWatch
from orchestration.client import connect_temporal, task_queue
from orchestration.search_attributes import STREAM, search_attributes
from orchestration.workers import ensure_search_attributes, identity, make_worker, start_background_task
from schedules.answers import RPC_TIMEOUT
from schedules.interval import owned_interval
from schedules.sync import restore_schedules, sync_schedules
from storage.database import connect, listen
from storage.notices import NotificationListener
from workflows.execution import ExecuteRequests
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring
from workflows.pulling import PullRequests

log = structlog.get_logger(__name__)


async def start_execution(client: Client, batches: BatchRef) -> None:
    """Start the execution of batches that were pulled together, unless it runs already. Any worker may take it."""
    await client.start_workflow(
        ExecuteRequests.run,
        batches,
        id=batches.workflow_id("execute"),
        task_queue=task_queue(Network.RESPONSE),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=search_attributes(batches),
        static_summary=batches.summary,
        task_timeout=TASK_TIMEOUT,
    )


async def running_executions(client: Client) -> list[BatchRef]:
    """The batches of all running executions. Temporal's list may lag a little."""
    query = "WorkflowType = 'ExecuteRequests' AND ExecutionStatus = 'Running'"
    found = [named_by(listed.id) async for listed in client.list_workflows(query)]
    return [batches for batches in found if batches is not None]


async def start_pulling(client: Client) -> None:
    """Start the run that pulls requests for ever, unless it runs already. Ends a run of another kind with its id."""
    running = await _start_pulling(client, WorkflowIDConflictPolicy.USE_EXISTING)
    found = await running.describe(rpc_timeout=RPC_TIMEOUT)
    if (found.workflow_type, found.task_queue) != (PullRequests.__name__, task_queue(Network.RESPONSE)):
        log.warning("pulling.replaced", workflow=found.workflow_type, task_queue=found.task_queue)
        await _start_pulling(client, WorkflowIDConflictPolicy.TERMINATE_EXISTING)


async def _start_pulling(client: Client, conflict: WorkflowIDConflictPolicy) -> WorkflowHandle[Any, Any]:
    return await client.start_workflow(
        PullRequests.run,
        PullProgress(),
        id=PULL_WORKFLOW_ID,
        task_queue=task_queue(Network.RESPONSE),
        id_conflict_policy=conflict,
        search_attributes=TypedSearchAttributes([SearchAttributePair(STREAM, StreamName.REQUESTS.value)]),
        static_summary="long-poll the request network, for ever",
        rpc_timeout=RPC_TIMEOUT,
    )


async def keep_existing(client: Client, cadences: Mapping[str, Cadence]) -> None:
    """Make what must always exist and is gone: the run that pulls, and the schedules."""
    await start_pulling(client)
    await restore_schedules(client, cadences)


def bounds(settings: ResponseSettings) -> dict[str, timedelta | None]:
    """How long a run may last until an alert is raised."""
    interval = settings.cadences[EXPORT_RESULTS].every
    return {
        "PullRequests": None,  # for ever
        "ExportSettings": timedelta(minutes=10),  # seconds, unless the link is dead
        "ExportResults": timedelta(seconds=interval, minutes=10) if interval else None,  # until the next tick
        "SystemMonitoring": timedelta(minutes=5),  # it waits for the link for a minute at most
        "CacheMaintenance": timedelta(hours=1),
    }


@asynccontextmanager
async def response_worker(settings: ResponseSettings, runtime: Runtime) -> AsyncIterator[Worker]:
    """A worker that is ready to run. Its schedules are in sync, and the pull loop is started."""
    client = await connect_temporal(settings, runtime, identity=identity(Network.RESPONSE))
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        engine = connect(url, settings.database_connections, "airlock-response-worker")
        stack.push_async_callback(engine.dispose)
        keys = LiveKeys(engine, Network.RESPONSE, settings.keys)
        cache = Cache(settings.redis_url.get_secret_value(), lambda: derived_secret(keys, "cache"))
        stack.push_async_callback(cache.aclose)
        signer = HttpSigner(keys, settings.link_id, settings.clock_skew)
        link = LinkClient(settings.link_url, signer, settings.link_timeout, client_tls(settings))
        stack.push_async_callback(link.aclose)
        executors = Executors(
            SqlSources(settings.sources, settings.executions),
            HttpCalls(settings.http_hosts),
            PythonFunctions(settings.python_executors),
            cache,
        )
        stack.push_async_callback(executors.aclose)

        sealer = Sealer(keys, settings.link_id)
        watch = LinkWatch(engine, settings.cadences)
        listener = NotificationListener()
        streams = StreamActivities(
            Delivery(engine, sealer, link),
            watch,
            listener,
            partial(owned_interval, client, EXPORT_RESULTS),
            settings.cadences[EXPORT_RESULTS].follow,
        )
        executing = ExecutionActivities(engine, sealer, executors, settings.executions)
        pull = Pull(engine, Receiver(engine, keys, settings.link_id), link)
        pulling = PullActivities(pull, partial(start_execution, client), partial(running_executions, client), watch)
        temporal_state = TemporalState(client, task_queue(Network.RESPONSE), settings.cadences)
        monitoring = MonitoringActivities(engine, cache, sealer, settings.cadences, temporal_state)
        maintenance = MaintenanceActivities(Network.RESPONSE, engine, cache, settings.retention)

        await ensure_search_attributes(client)
        await sync_schedules(client, settings.cadences)
        await start_pulling(client)
        start_background_task(stack, keys.keep_current())
        start_background_task(stack, listen(url, listener.hear, listener.connected, "airlock-response-worker"))
        keep = partial(keep_existing, client, settings.cadences)
        start_background_task(stack, WorkflowWatch(client, engine, bounds(settings), keep).run())
        start_background_task(stack, WaitingWatch(engine, Network.RESPONSE, settings.waiting_alert).run())
        start_background_task(stack, KeyExchange(keys, link, settings.link_id).run())
        start_background_task(stack, KeyExchange(keys, link, settings.link_id, announce_new_keys).run())
        yield make_worker(
            client,
            settings,
            [ExportSettings, ExportResults, SystemMonitoring, CacheMaintenance, PullRequests, ExecuteRequests],
            [
                streams.seal_settings,
                streams.deliver,
                streams.deliver_until_next_tick,
                pulling.pull_requests,
                executing.execute_batches,
                monitoring.measure,
                maintenance.tend,
            ],
        )
