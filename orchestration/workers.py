"""Options and background tasks of all workers."""

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import structlog
from temporalio.api.enums.v1 import IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest, ListSearchAttributesRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import PollerBehaviorAutoscaling, Worker, WorkerDeploymentConfig

from configuration.settings import NetworkSettings
from configuration.timing import STICKY_TIMEOUT
from configuration.version import VERSION
from orchestration.client import task_queue
from orchestration.search_attributes import BATCH, RECORDS, STREAM

log = structlog.get_logger(__name__)

ACTIVITIES_AT_ONCE = 100


def identity(network: str) -> str:
    """A worker's name in Temporal: ``response-worker 4711@host``."""
    return f"{network}-worker {os.getpid()}@{socket.gethostname()}"


def make_worker(
    client: Client, settings: NetworkSettings, workflows: Sequence[type], activities: Sequence[Callable[..., Any]]
) -> Worker:
    """A worker on the network's task queue: sandboxed workflows, pollers that grow with the load, graceful shutdown.

    The deployment version is reported and not used for routing: a new version takes over when it is started.
    """
    return Worker(
        client,
        task_queue=task_queue(settings.network),
        workflows=workflows,
        activities=activities,
        max_concurrent_activities=ACTIVITIES_AT_ONCE,
        workflow_task_poller_behavior=PollerBehaviorAutoscaling(minimum=1, initial=2, maximum=20),
        activity_task_poller_behavior=PollerBehaviorAutoscaling(minimum=1, initial=2, maximum=20),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        graceful_shutdown_timeout=timedelta(seconds=settings.drain_seconds),
        deployment_config=WorkerDeploymentConfig(
            version=WorkerDeploymentVersion(deployment_name=f"airlock-{settings.network}", build_id=VERSION),
            use_worker_versioning=False,
        ),
    )


async def ensure_search_attributes(client: Client) -> None:
    """Register the search attributes that the namespace lacks."""
    wanted = {
        STREAM.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD,
        BATCH.name: IndexedValueType.INDEXED_VALUE_TYPE_INT,
        RECORDS.name: IndexedValueType.INDEXED_VALUE_TYPE_INT,
    }
    known = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=client.namespace)
    )
    missing = {name: kind for name, kind in wanted.items() if name not in known.custom_attributes}
    if missing:
        try:
            await client.operator_service.add_search_attributes(
                AddSearchAttributesRequest(namespace=client.namespace, search_attributes=missing)
            )
        except RPCError as error:
            if error.status is not RPCStatusCode.ALREADY_EXISTS:
                raise


def start_background_task(stack: AsyncExitStack, work: Coroutine[Any, Any, None]) -> None:
    """Run this endless work until the stack is closed. An error that ends it is logged."""

    async def stop(task: "asyncio.Task[None]") -> None:
        task.cancel()
        await asyncio.wait((task,))

    def log_error(task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.critical("worker.task_broke", exc_info=error)

    running = asyncio.create_task(work)
    running.add_done_callback(log_error)
    stack.push_async_callback(stop, running)
