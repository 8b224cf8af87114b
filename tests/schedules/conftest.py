"""A real Temporal development server, started once, and a client whose schedules are taken away after each test."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from configuration.cadences import DEFAULT_CADENCES
from embedded.temporal import find_temporal

FOREIGN, FORMER = "somebody-elses", "export-reports"


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """The server, with our search attribute."""
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=find_temporal(),
        dev_server_extra_args=["--search-attribute", "AirlockStream=Keyword"],
        dev_server_log_level="error",
        data_converter=pydantic_data_converter,
    )
    async with environment:
        yield environment


@pytest.fixture
async def client(temporal: WorkflowEnvironment) -> AsyncIterator[Client]:
    """A client; afterwards no schedule is left."""
    yield temporal.client
    for schedule_id in (*DEFAULT_CADENCES, FOREIGN, FORMER):
        try:
            await temporal.client.get_schedule_handle(schedule_id).delete()
        except RPCError:
            continue


async def listed(client: Client, schedule_id: str) -> None:
    """Return when the server's list, which lags behind, has this schedule."""
    async with asyncio.timeout(10):
        while schedule_id not in [found.id async for found in await client.list_schedules()]:  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0.1)
