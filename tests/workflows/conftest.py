"""A real Temporal development server that skips time, and a worker whose activities are stand-ins."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowHandle, WorkflowHistory
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Replayer, Worker

from embedded.temporal import DYNAMIC_CONFIG, find_temporal
from orchestration.client import DATA
from orchestration.search_attributes import BATCH, RECORDS, STREAM
from tests.workflows.standins import StandIns
from workflows.execution import ExecuteRequests
from workflows.exports import CacheMaintenance, ExportResults, ExportSettings, SystemMonitoring
from workflows.fulfilment import FulfillRequests
from workflows.importing import ImportBatch
from workflows.pulling import PullRequests

T = TypeVar("T")
WORKFLOWS: list[type] = [
    ExportSettings,
    ExportResults,
    SystemMonitoring,
    CacheMaintenance,
    PullRequests,
    ExecuteRequests,
    ImportBatch,
    FulfillRequests,
]
LONG_HISTORY = 200
"""Events after which the server suggests to continue as new; 4,096 by default."""
SERVER_OPTIONS = {
    **DYNAMIC_CONFIG,
    "frontend.WorkflowTimeSkippingEnabled": "true",
    "history.timerProcessorMaxTimeShift": '"20ms"',  # of real time that a skip takes; a second by default
    "limit.historyCount.suggestContinueAsNew": LONG_HISTORY,
}


@pytest.fixture(scope="session")
async def skipping() -> AsyncIterator[WorkflowEnvironment]:
    """The server."""
    environment = await WorkflowEnvironment.start_time_skipping_v2(
        dev_server_existing_path=find_temporal(),
        dev_server_extra_args=[
            part for item in SERVER_OPTIONS.items() for part in ("--dynamic-config-value", "{}={}".format(*item))
        ],
        dev_server_log_level="error",
        search_attributes=[STREAM, BATCH, RECORDS],
        data_converter=DATA,
    )
    async with environment:
        yield environment


@dataclass(frozen=True)
class Stage:
    """Where a test plays: a task queue of its own, a worker on it, and what stands in for the activities."""

    client: Client
    task_queue: str
    activities: StandIns
    started: list[WorkflowHandle[Any, Any]] = field(default_factory=list)

    async def start(
        self, run: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any
    ) -> WorkflowHandle[Any, Any]:
        """Start a workflow."""
        handle: WorkflowHandle[Any, Any] = await self.client.start_workflow(
            run, *arguments, id=f"test-{uuid4()}", task_queue=self.task_queue, **options
        )
        self.started.append(handle)
        return handle

    async def until(
        self, handle: WorkflowHandle[Any, Any], look: Callable[[WorkflowHandle[Any, Any]], Awaitable[T]], wanted: T
    ) -> None:
        """Return when the workflow's history shows what is wanted."""
        async with asyncio.timeout(20):
            while await look(handle) != wanted:  # noqa: ASYNC110, the server tells nobody
                await asyncio.sleep(0.02)

    async def histories(self) -> AsyncIterator[WorkflowHistory]:
        """What every run did that was started here, and every run that it continued as."""
        for handle in self.started:
            run_id = handle.result_run_id
            while run_id:
                history = await self.client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
                yield history
                last = history.events[-1].workflow_execution_continued_as_new_event_attributes
                run_id = last.new_execution_run_id


@pytest.fixture
async def stage(skipping: WorkflowEnvironment) -> AsyncIterator[Stage]:
    """A worker as in production: sandbox on, our converter. Whatever a test had a workflow do is replayed after it."""
    activities = StandIns()
    queue = f"test-{uuid4()}"
    async with Worker(skipping.client, task_queue=queue, workflows=WORKFLOWS, activities=activities.activities()):
        stage = Stage(skipping.client, queue, activities)
        yield stage
        await Replayer(workflows=WORKFLOWS, data_converter=DATA).replay_workflows(stage.histories())
