"""No workflow is stuck in silence: what cannot go on is told, and another run does its work."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from temporalio.client import Client, WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import Worker

from api.request import dispatching
from api.request.dispatching import Dispatcher
from chaos.leftovers import left_running
from configuration.cadences import DEFAULT_CADENCES, Cadence
from exchange.transfer.receiving import Receiver
from fulfilment.group_commit import CommittedGroup
from fulfilment.request_store import mark_groups_fulfilled, store_group
from models.streams import PULL_WORKFLOW_ID, BatchRef, StreamName
from monitoring.measurement_store import open_alerts, settle_alerts
from monitoring.workflow_watch import WorkflowWatch
from orchestration.client import DATA
from storage.attendance import RESULTS, attend
from storage.database import connect
from tests.conftest import Networks, Side
from tests.link.batches import seal
from tests.workflows.failures import Wrong
from tests.workflows.standins import StandIns, error
from wiring.response_worker import keep_existing, start_pulling
from workflows.exports import SystemMonitoring

SOON = timedelta(seconds=1)
RUNNING, TERMINATED = WorkflowExecutionStatus.RUNNING, WorkflowExecutionStatus.TERMINATED


@pytest.fixture
async def client(skipping: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    """For it no time is skipped, and no run is too young to be looked at. What still runs after a test is ended."""
    monkeypatch.setattr("monitoring.stuck_workflows.OLD_ENOUGH", timedelta())
    of = skipping.client
    client = await Client.connect(of.service_client.config.target_host, namespace=of.namespace, data_converter=DATA)
    yield client
    async for listed in client.list_workflows("ExecutionStatus = 'Running'"):
        try:
            await client.get_workflow_handle(listed.id, run_id=listed.run_id).terminate()
        except RPCError:
            continue


async def until(holds: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(30):
        while not await holds():  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0.1)


async def status(handle: WorkflowHandle[Any, Any]) -> WorkflowExecutionStatus | None:
    return (await handle.describe()).status


async def alerts(side: Side) -> dict[str, str]:
    async with side.engine.connect() as connection:
        return {alert.name: alert.message for alert in await open_alerts(connection)}


async def test_a_run_whose_task_fails_is_told_and_ended_and_the_alert_stays_for_a_while(
    client: Client, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue, side = f"test-{uuid4()}", networks.response
    watch = WorkflowWatch(client, side.engine, {"ExportResults": None})

    async def is_told() -> bool:
        await watch.look()
        return bool(await alerts(side))

    async with Worker(client, task_queue=queue, workflows=[Wrong]):
        handle = await client.start_workflow("ExportResults", id=f"test-{uuid4()}", task_queue=queue, task_timeout=SOON)
        await until(is_told)
        name = f"workflow-stuck:{handle.id}"
        ((found, message),) = (await alerts(side)).items()
        assert found == name
        assert message.startswith(f"ExportResults {handle.id}: its workflow task has failed ")
        assert ": this code does not fit. What to do: " in message
        assert await status(handle) is RUNNING, "it may still recover"
        monkeypatch.setattr("monitoring.stuck_workflows.ENDED_AFTER", SOON)
        await watch.look()
    assert await status(handle) is TERMINATED
    await watch.look()
    async with side.engine.begin() as connection:
        await settle_alerts(connection, {})  # as a measurement does, which knows nothing of it
    assert name in await alerts(side), "an operator has to see it"
    monkeypatch.setattr("monitoring.workflow_watch.KEPT_OPEN", timedelta())
    await watch.look()
    assert await alerts(side) == {}


async def test_a_run_beyond_its_bound_is_told_with_what_keeps_it_and_goes_on(
    client: Client, networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.stuck_workflows.ENDED_AFTER", timedelta())
    activities = StandIns()
    activities.line_up("deliver", error("LinkUnavailable", "nobody answers"))
    queue, side = f"test-{uuid4()}", networks.response
    watch = WorkflowWatch(client, side.engine, {"SystemMonitoring": SOON})

    async def is_told() -> bool:
        await watch.look()
        return any("; deliver, attempt " in message for message in (await alerts(side)).values())

    async with Worker(client, task_queue=queue, workflows=[SystemMonitoring], activities=activities.activities()):
        handle = await client.start_workflow(SystemMonitoring.run, id=f"test-{uuid4()}", task_queue=queue)
        await until(is_told)
        message = (await alerts(side))[f"workflow-stuck:{handle.id}"]
        assert "longer than 1 s; deliver, attempt " in message
        assert message.endswith(f": temporal workflow terminate -w {handle.id}")
        assert await status(handle) is RUNNING


async def test_pulling_that_was_ended_begins_again(client: Client, networks: Networks) -> None:
    await start_pulling(client)
    pulling = client.get_workflow_handle(PULL_WORKFLOW_ID)
    await pulling.terminate()
    await start_pulling(client)
    assert await status(pulling) is RUNNING
    before = (await pulling.describe()).run_id
    await start_pulling(client)
    assert (await pulling.describe()).run_id == before, "one is enough"


@pytest.mark.parametrize("impostor", [("Wrong", "airlock-response"), ("PullRequests", "a-queue-without-workers")])
async def test_another_run_with_the_id_of_pulling_is_replaced(client: Client, impostor: tuple[str, str]) -> None:
    workflow, queue = impostor
    await client.start_workflow(workflow, id=PULL_WORKFLOW_ID, task_queue=queue)
    await start_pulling(client)
    found = await client.get_workflow_handle(PULL_WORKFLOW_ID).describe()
    assert (found.workflow_type, found.task_queue, found.status) == ("PullRequests", "airlock-response", RUNNING)


async def schedules_exist(client: Client) -> bool:
    """Asks for each of them: the list lags behind what was deleted."""
    try:
        for name in DEFAULT_CADENCES:
            await client.get_schedule_handle(name).describe()
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return False
    return True


async def test_a_worker_makes_again_what_was_ended_or_deleted_even_while_its_database_is_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitoring.workflow_watch.LOOK_SECONDS", 0.05)
    away = connect("postgresql://nobody@127.0.0.1:1/none")
    await keep_existing(client, DEFAULT_CADENCES)
    pulling = client.get_workflow_handle(PULL_WORKFLOW_ID)

    async def exist() -> bool:
        return await schedules_exist(client) and await status(pulling) is RUNNING

    await until(exist)
    watch = WorkflowWatch(client, away, {}, partial(keep_existing, client, DEFAULT_CADENCES))
    watching = asyncio.create_task(watch.run())
    try:
        for _ in range(2):
            await pulling.terminate()
            for name in DEFAULT_CADENCES:
                await client.get_schedule_handle(name).delete()
            await until(exist)
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        for name in DEFAULT_CADENCES:
            await client.get_schedule_handle(name).delete()


async def test_what_a_worker_makes_again_leaves_other_schedules_as_they_are(client: Client) -> None:

    async def made() -> bool:
        await keep_existing(client, DEFAULT_CADENCES)
        return await schedules_exist(client)

    await until(made)
    handle = client.get_schedule_handle("export-settings")
    await handle.pause(note="maintenance")
    try:
        await keep_existing(client, {**DEFAULT_CADENCES, "export-settings": Cadence(every=7)})
        described = (await handle.describe()).schedule
        assert (described.state.paused, described.spec.intervals[0].every) == (True, timedelta(seconds=60))
    finally:
        for name in DEFAULT_CADENCES:
            await client.get_schedule_handle(name).delete()


@pytest.fixture
def dispatcher(client: Client, networks: Networks, monkeypatch: pytest.MonkeyPatch) -> Dispatcher:
    """It looks all the time after what was left."""
    monkeypatch.setattr("storage.attendance.LEASE_SECONDS", 0.5)
    for name in ("LOOK_SECONDS", "LEFT_SECONDS", "NOT_SEEN_SECONDS"):
        monkeypatch.setattr(dispatching, name, 0.2)
    return Dispatcher(networks.request.engine, client)


async def is_replaced(client: Client, dispatcher: Dispatcher, workflow_id: str) -> None:
    """Returns when this workflow was terminated, and another run of it was started."""
    handle = client.get_workflow_handle(workflow_id)

    async def runs() -> bool:
        try:
            return await status(handle) is RUNNING
        except RPCError:
            return False

    await until(runs)
    before = (await handle.describe()).run_id
    await handle.terminate()
    looking = asyncio.create_task(dispatcher.run())
    try:
        await until(runs)
    finally:
        looking.cancel()
    assert (await handle.describe()).run_id != before


async def test_groups_whose_run_was_ended_get_another_one(
    client: Client, networks: Networks, dispatcher: Dispatcher
) -> None:
    group = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=1, records=3)
    async with networks.request.engine.begin() as connection:
        await store_group(connection, group, 3)
    dispatcher.group_committed(CommittedGroup(group, 0.0))
    await is_replaced(client, dispatcher, group.workflow_id("fulfil"))


@pytest.mark.parametrize("stream", [StreamName.RESULTS, StreamName.SETTINGS])
async def test_batches_whose_run_was_ended_get_another_one(
    client: Client, networks: Networks, dispatcher: Dispatcher, stream: StreamName
) -> None:
    wire = await seal(networks.response, stream, b'{"n":1}')
    accepted = await Receiver(networks.request.engine, networks.request.keys, "test").accept(stream, wire)
    assert accepted.starts_import
    dispatcher.start_import(accepted.batch)
    await is_replaced(client, dispatcher, accepted.batch.workflow_id("apply"))


async def test_what_the_chaos_harness_takes_for_left_running(client: Client, networks: Networks) -> None:
    def batch(stream: StreamName, sequence: int, first: int | None = None) -> BatchRef:
        return BatchRef(stream=stream, epoch=1, sequence=sequence, first=first)

    fulfilled, opened = batch(StreamName.REQUESTS, 1), batch(StreamName.REQUESTS, 2)
    attending = batch(StreamName.RESULTS, 1).workflow_id("apply")
    async with networks.request.engine.begin() as connection:
        await store_group(connection, fulfilled, 1)
        await store_group(connection, opened, 1)
        await mark_groups_fulfilled(connection, fulfilled)
        await attend(connection, RESULTS, attending)
    wanted = {
        PULL_WORKFLOW_ID: "PullRequests",
        "export-results-1": "ExportResults",
        attending: "ImportBatch",
        opened.workflow_id("fulfil"): "FulfillRequests",
        batch(StreamName.REQUESTS, 3, first=1).workflow_id("fulfil"): "FulfillRequests",
    }
    left = {
        batch(StreamName.REQUESTS, 7).workflow_id("execute"): "ExecuteRequests",
        batch(StreamName.SETTINGS, 1).workflow_id("apply"): "ImportBatch",
        fulfilled.workflow_id("fulfil"): "FulfillRequests",
        "system-monitoring-1": "SystemMonitoring",
    }
    for workflow_id, kind in (wanted | left).items():
        await client.start_workflow(kind, id=workflow_id, task_queue="nobody-polls")
    up = {
        "temporal": client.service_client.config.target_host,
        "namespaces": dict.fromkeys(("request", "response"), client.namespace),
        "databases": {"request": networks.request.url},
    }

    async def all_are_listed() -> bool:
        return len({found.split()[1] for found in await left_running(up)}) == len(left)

    await until(all_are_listed)
    assert {found.split()[1] for found in await left_running(up)} == left.keys()
    await client.start_workflow("ExportResults", id="export-results-2", task_queue="nobody-polls")

    async def one_export_is_too_many() -> bool:
        return any(found.startswith("ExportResults ") for found in await left_running(up))

    await until(one_export_is_too_many)
