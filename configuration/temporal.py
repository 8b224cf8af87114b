"""The connection to a network's Temporal."""

from datetime import timedelta

from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.runtime import Runtime

from configuration.settings import NetworkSettings
from models.streams import Network

TASK_TIMEOUT = timedelta(seconds=8)
"""Of a workflow's task, in which its short work is done as well: after this, that of a worker which was killed is given
to another one. The default of 10 s is longer than work that beats is left with a dead worker."""


def task_queue(network: Network) -> str:
    """The one task queue of a network's workflows and activities."""
    return f"airlock-{network}"


async def connect_temporal(
    settings: NetworkSettings, *, lazy: bool = False, runtime: Runtime | None = None, identity: str | None = None
) -> Client:
    """A client in the network's namespace. A lazy one connects at its first call, so that who holds it starts without
    Temporal; otherwise raises ``RuntimeError`` when Temporal does not answer.
    """
    api_key = settings.temporal_api_key.get_secret_value() if settings.temporal_api_key else None
    return await Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        api_key=api_key,
        tls=api_key is not None,
        data_converter=pydantic_data_converter,
        lazy=lazy,
        runtime=runtime,
        identity=identity,
    )
