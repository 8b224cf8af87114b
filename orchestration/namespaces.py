"""Waits for the namespaces of a Temporal server that has just been started."""

import asyncio
from collections.abc import Iterable
from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from temporalio.api.namespace.v1 import NamespaceConfig
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, UpdateNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError

from orchestration.client import sdk_runtime

RPC_TIMEOUT = timedelta(seconds=5)
INTERVAL = 0.05
"""Seconds between two tries."""


async def ensure_retention(address: str, namespaces: Iterable[str], seconds: int) -> None:
    """Return once each namespace answers and keeps closed workflows for at least so many seconds."""
    client = await Client.connect(address, lazy=True, runtime=sdk_runtime("OFF"))
    for namespace in namespaces:
        while not await _keeps(client, namespace, seconds):  # noqa: ASYNC110, the server sends no event
            await asyncio.sleep(INTERVAL)


async def _keeps(client: Client, namespace: str, seconds: int) -> bool:
    """Whether the namespace answers and keeps workflows that long, if necessary from now on."""
    service = client.workflow_service
    try:
        found = await service.describe_namespace(DescribeNamespaceRequest(namespace=namespace), timeout=RPC_TIMEOUT)
        if found.config.workflow_execution_retention_ttl.ToSeconds() < seconds:
            config = NamespaceConfig(workflow_execution_retention_ttl=Duration(seconds=seconds))
            change = UpdateNamespaceRequest(namespace=namespace, config=config)
            await service.update_namespace(change, timeout=RPC_TIMEOUT)
    except (RPCError, RuntimeError):  # not there yet; RuntimeError: the client cannot connect
        return False
    return True
