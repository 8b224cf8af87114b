"""The sandbox is on, sees every workflow, and costs a workflow task next to nothing."""

import asyncio
import dataclasses
import importlib
import pkgutil
from typing import Any
from uuid import uuid4

import pytest
from pydantic import SecretStr
from temporalio import workflow
from temporalio.client import WorkflowHandle
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner, SandboxRestrictions

import workflows
from configuration.settings import RequestSettings
from orchestration.workers import make_worker
from tests.workflows.clock_reader import ClockReader
from tests.workflows.conftest import WORKFLOWS
from tests.workflows.standins import StandIns

STRICT = SandboxedWorkflowRunner(
    restrictions=dataclasses.replace(
        SandboxRestrictions.default,
        import_notification_policy=workflow.SandboxImportNotificationPolicy.RAISE_ON_UNINTENTIONAL_PASSTHROUGH
        | workflow.SandboxImportNotificationPolicy.WARN_ON_DYNAMIC_IMPORT,
    )
)
"""Refuses a workflow whose module imports anything that is neither the SDK's nor passed through."""


def workflows_in_the_house() -> set[str]:
    """The names of all workflow classes below ``workflows``."""
    names = set()
    for module in pkgutil.iter_modules(workflows.__path__, "workflows."):
        for member in vars(importlib.import_module(module.name)).values():
            definition = getattr(member, "__temporal_workflow_definition", None)
            if isinstance(member, type) and definition is not None:
                names.add(definition.name)
    return names


def test_these_tests_know_every_workflow() -> None:
    assert {kind.__name__ for kind in WORKFLOWS} == workflows_in_the_house()
    assert len(WORKFLOWS) == 8


@pytest.mark.parametrize("kind", WORKFLOWS, ids=lambda kind: kind.__name__)
async def test_a_run_loads_its_own_module_and_nothing_else(skipping: WorkflowEnvironment, kind: type) -> None:
    """Each run loads its module afresh: were the activities loaded with it, so were SQLAlchemy and httpx, which takes
    longer than the two seconds after which Temporal takes a workflow task for stuck.
    """
    Worker(
        skipping.client,
        task_queue=f"test-{uuid4()}",
        workflows=[kind],
        activities=StandIns().activities(),
        workflow_runner=STRICT,
    )


async def test_workers_run_workflows_in_the_sandbox(skipping: WorkflowEnvironment) -> None:
    settings = RequestSettings(database_url=SecretStr("postgresql://nobody@nowhere/none"))
    async with make_worker(skipping.client, settings, [ClockReader], []) as worker:
        handle = await skipping.client.start_workflow(
            ClockReader.run, id=f"test-{uuid4()}", task_queue=worker.task_queue
        )
        async with asyncio.timeout(20):
            while not (failures := await failed_tasks(handle)):  # noqa: ASYNC110, the server tells nobody
                await asyncio.sleep(0.02)
        await handle.terminate()
    assert "datetime.datetime.now" in failures[0]


async def failed_tasks(handle: WorkflowHandle[Any, Any]) -> list[str]:
    """Why workflow tasks failed."""
    return [
        event.workflow_task_failed_event_attributes.failure.message
        async for event in handle.fetch_history_events()
        if event.HasField("workflow_task_failed_event_attributes")
    ]
