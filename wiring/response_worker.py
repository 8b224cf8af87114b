"""The response network's worker: exports, monitoring, maintenance, pulling and executing."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes, WorkflowIDConflictPolicy
from temporalio.runtime import Runtime
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import Worker

from activities.announcing import ExportAnnouncer
from activities.executing import ExecutionActivities
from activities.link_watch import LinkWatch
from activities.maintaining import MaintenanceActivities
from activities.monitoring import MonitoringActivities
from activities.orchestration import Orchestration
from activities.pulling import PullActivities
from activities.streams import StreamActivities
from activities.unpulled import UnpulledPartitions
from cache.redis_cache import Cache
from configuration.settings import ResponseSettings
from configuration.temporal import TASK_TIMEOUT, connect_temporal, task_queue
from exchange.delivery import Delivery
from exchange.http_signature import HttpSigner
from exchange.key_exchange import KeyExchange
from exchange.link import LinkClient
from exchange.link_tls import client_tls
from exchange.live_keys import LiveKeys
from exchange.pulling import Pull
from exchange.receiving import Receiver
from exchange.remote_side import RemoteSide
from exchange.sealing import Sealer
from executors.http import HttpCalls
from executors.python import PythonFunctions
from executors.registry import Executors
from executors.sql import SqlSources
from models.outcomes import BRIEF, PullProgress
from models.streams import BatchRef, Network, StreamName, pull_workflow_id
from scheduling.sync import sync_schedules
from storage.database import connect, listen
from storage.partitions import begin_partitions, partitions_in_use
from storage.standby import Standby
from wiring.options import ensure_search_attributes, identity, make_worker, start_background_task
from workflows.execution import ExecuteRequests
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring
from workflows.pulling import PullRequests
from workflows.search_attributes import STREAM, search_attributes

log = structlog.get_logger(__name__)


async def start_execution(client: Client, is_idle: Callable[[], bool], batch: BatchRef) -> None:
    """Have a batch executed; one whose execution runs already is left to it.

    A request that comes alone by this very worker, where that executes nothing else: Temporal then gives it the first
    task with its answer, and looks for no other. All else is for whichever worker asks for work next.
    """
    await client.start_workflow(
        ExecuteRequests.run,
        batch,
        id=batch.workflow_id("execute"),
        task_queue=task_queue(Network.RESPONSE),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=search_attributes(batch),
        static_summary=f"{batch}: {batch.records} records",
        task_timeout=TASK_TIMEOUT,
        memo={BRIEF: True},
        request_eager_start=batch.records == 1 and is_idle(),
    )


async def start_pulling(client: Client, stream: StreamName) -> None:
    """Have a stream pulled for ever; where that is done already, nothing."""
    await client.start_workflow(
        PullRequests.run,
        PullProgress(partition=stream.number),
        id=pull_workflow_id(stream),
        task_queue=task_queue(Network.RESPONSE),
        id_conflict_policy=WorkflowIDConflictPolicy.USE_EXISTING,
        search_attributes=TypedSearchAttributes([SearchAttributePair(STREAM, stream.value)]),
        static_summary="long-poll the request network, for ever",
    )


async def end_pulling(client: Client, stream: StreamName) -> None:
    """Have a partition pulled no more. What it holds stays where it is, and an alarm tells of it."""
    try:
        await client.get_workflow_handle(pull_workflow_id(stream)).terminate(
            reason="AIRLOCK_RESPONSE_PARTITIONS was lowered"
        )
        log.warning("pulling.ended", stream=stream)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise


@asynccontextmanager
async def response_worker(settings: ResponseSettings, runtime: Runtime) -> AsyncIterator[Worker]:
    """A worker that is ready to run; its schedules are in sync and its pull loop is started."""
    client = await connect_temporal(settings, runtime=runtime, identity=identity(Network.RESPONSE))
    async with AsyncExitStack() as stack:
        url = settings.database_url.get_secret_value()
        engine = connect(url, settings.database_connections, "airlock-response-worker")
        stack.push_async_callback(engine.dispose)
        keys = LiveKeys(engine, Network.RESPONSE, settings.keys)
        cache = Cache(settings.redis_url.get_secret_value())
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
        announcer = ExportAnnouncer(client, engine, settings.partitions)
        stack.push_async_callback(announcer.finish)
        standby = Standby()
        streams = StreamActivities(Delivery(engine, sealer, link), watch, standby, announcer.is_paused)
        executing = ExecutionActivities(
            engine, sealer, executors, settings.executions, announcer.results_are_ready, settings.partitions
        )
        pull = Pull(engine, Receiver(engine, keys, settings.link_id), link)
        pulling = PullActivities(pull, partial(start_execution, client, executing.is_idle), watch)
        orchestration = Orchestration(client, task_queue(Network.RESPONSE), settings.cadences)
        monitoring = MonitoringActivities(engine, cache, sealer, settings.cadences, orchestration, settings.partitions)
        maintenance = MaintenanceActivities(Network.RESPONSE, engine, cache, settings.retention)

        await ensure_search_attributes(client)
        async with engine.begin() as connection:
            drained = await begin_partitions(connection, StreamName.RESULTS, settings.partitions)
            pulled_before = await partitions_in_use(connection, StreamName.REQUESTS)
        await sync_schedules(client, settings.cadences, drained)
        for stream in StreamName.REQUESTS.partitions(settings.partitions):
            await start_pulling(client, stream)
        for stream in pulled_before:
            if stream.number >= settings.partitions:
                await end_pulling(client, stream)
        start_background_task(stack, keys.keep_current())
        start_background_task(stack, listen(url, standby.hear, standby.connected, "airlock-response-worker"))
        start_background_task(stack, UnpulledPartitions(engine, RemoteSide(link), settings.partitions).run())
        start_background_task(stack, KeyExchange(keys, link, settings.link_id).run())
        yield make_worker(
            client,
            settings,
            [ExportSettings, ExportResults, SystemMonitoring, CacheMaintenance, PullRequests, ExecuteRequests],
            [
                streams.seal_settings,
                streams.drain,
                streams.drain_when_ready,
                pulling.pull_requests,
                executing.execute_batch,
                monitoring.measure,
                maintenance.tend,
            ],
        )
