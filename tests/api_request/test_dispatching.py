"""What was committed gets its workflow: at once, or as soon as Temporal is back. Nobody waits for that."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
from storage.standby import received
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from api.request import dispatching
from embedded.temporal import find_temporal
from exchange.carriers.http import LinkClient
from exchange.transfer.incoming import mark_applied
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from models.streams import BatchRef, StreamName
from orchestration.search_attributes import BATCH, RECORDS, STREAM
from storage.database import rows
from tests.api_request.proxy import Proxy, proxied
from tests.api_request.serving import AIRPORT, IST, eventually, new_user, publish, serving, settings_for
from tests.conftest import Networks
from tests.hearing import hearing
from tests.link.batches import seal


@dataclass
class Dispatched:
    """An app that reaches Temporal through a proxy."""

    url: str
    http: httpx.AsyncClient
    proxy: Proxy
    networks: Networks
    client: Client

    async def groups(self) -> dict[BatchRef, bool]:
        """Each group, and whether the database knows it as started."""
        async with self.networks.request.engine.connect() as connection:
            found = await rows(
                connection, "SELECT epoch, sequence, size, started_at IS NOT NULL FROM request_groups ORDER BY sequence"
            )
        return {
            BatchRef(stream=StreamName.REQUESTS, epoch=epoch, sequence=sequence, records=size): started
            for epoch, sequence, size, started in found
        }

    async def leaders(self) -> set[BatchRef]:
        """The groups whose workflows see to all."""
        async with self.networks.request.engine.connect() as connection:
            found = await rows(connection, "SELECT DISTINCT epoch, coalesce(leader, sequence) FROM request_groups")
        return {BatchRef(stream=StreamName.REQUESTS, epoch=epoch, sequence=sequence) for epoch, sequence in found}

    async def all_started(self) -> bool:
        return all((await self.groups()).values())

    async def is_running(self, batch: BatchRef, verb: str) -> bool:
        try:
            found = await self.client.get_workflow_handle(batch.workflow_id(verb)).describe()
        except RPCError:
            return False
        return found.status is WorkflowExecutionStatus.RUNNING  # an earlier test's of this name was terminated


@pytest.fixture(scope="module")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A Temporal server whose namespace has the search attributes, as workers make them."""
    attributes = (f"{STREAM.name}=Keyword", f"{BATCH.name}=Int", f"{RECORDS.name}=Int")
    async with await WorkflowEnvironment.start_local(
        dev_server_existing_path=find_temporal(),
        dev_server_extra_args=[part for each in attributes for part in ("--search-attribute", each)],
        dev_server_log_level="error",
        data_converter=pydantic_data_converter,
    ) as environment:
        yield environment


@pytest.fixture
async def dispatched(
    fresh: Networks, temporal: WorkflowEnvironment, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Dispatched]:
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(dispatching, "LEFT_SECONDS", 0.2)
    user = new_user()
    await publish(fresh, [user.record(), AIRPORT])
    host, _, port = temporal.client.service_client.config.target_host.partition(":")
    async with proxied(host, int(port)) as proxy:
        settings = settings_for(
            fresh, temporal_address=f"127.0.0.1:{proxy.port}", temporal_namespace=temporal.client.namespace
        )
        async with serving(settings) as url, user.calls(url) as http:
            found = Dispatched(url, http, proxy, fresh, temporal.client)
            try:
                yield found
            finally:
                proxy.heal()
                async for workflow in temporal.client.list_workflows("ExecutionStatus = 'Running'"):
                    await temporal.client.get_workflow_handle(workflow.id).terminate()


async def test_many_calls_at_once_become_few_workflows_and_each_is_started(dispatched: Dispatched) -> None:
    answers = await asyncio.gather(*(dispatched.http.post("/v1/requests", json=IST) for _ in range(60)))
    assert {answer.status_code for answer in answers} == {202}
    await eventually(dispatched.all_started, "every group has its workflow")
    groups = await dispatched.groups()
    assert sum(group.records for group in groups) == 60
    assert len(groups) < 30
    for group in await dispatched.leaders():
        assert await dispatched.is_running(group, "fulfil"), str(group)


async def test_one_workflow_sees_to_groups_that_come_close_together(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TOGETHER_SECONDS", 2.0)
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 60.0)  # nothing is taken for left meanwhile
    for _ in range(5):
        assert (await dispatched.http.post("/v1/requests", json=IST)).status_code == 202
    await eventually(dispatched.all_started, "every group has its workflow")
    assert len(await dispatched.groups()) == 5
    (leader,) = await dispatched.leaders()
    assert leader.sequence == 1
    assert await dispatched.is_running(leader, "fulfil")
    second = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=2)
    assert not await dispatched.is_running(second, "fulfil")


async def test_who_has_callbacks_to_make_waits_for_no_others_nor_do_those_with_it(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TOGETHER_SECONDS", 600.0)
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 600.0)  # nothing is taken for left meanwhile
    for _ in range(2):
        assert (await dispatched.http.post("/v1/requests", json=IST)).status_code == 202
        assert not all((await dispatched.groups()).values())
        called_back = IST | {"callback_url": "https://example.org/"}
        assert (await dispatched.http.post("/v1/requests", json=called_back)).status_code == 202
        await eventually(dispatched.all_started, "every group has its workflow")


async def test_a_deadline_is_looked_at_in_time_however_long_its_group_waited_for_others(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TOGETHER_SECONDS", 1.0)
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 60.0)  # nothing is taken for left meanwhile
    assert (await dispatched.http.post("/v1/requests", json=IST | {"deadline": 3})).status_code == 202
    await eventually(dispatched.all_started, "the group has its workflow")
    group = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=1)
    found = await dispatched.client.get_workflow_handle(group.workflow_id("fulfil")).describe()
    assert found.execution_time is not None
    assert 0 < (found.execution_time - found.start_time).total_seconds() <= 2.0


async def test_what_comes_while_temporal_is_away_is_accepted_and_started_when_it_is_back(
    dispatched: Dispatched,
) -> None:
    await dispatched.proxy.cut()
    link = LinkClient(dispatched.url, HttpSigner(dispatched.networks.response.keys, "test"))
    for _ in range(3):
        accepted = await dispatched.http.post("/v1/requests", json=IST)
        assert accepted.status_code == 202
    cancelled = await dispatched.http.delete(f"/v1/requests/{accepted.json()['id']}")
    assert cancelled.status_code == 200
    await link.push(StreamName.RESULTS, await seal(dispatched.networks.response, StreamName.RESULTS, b"{}"))
    await link.aclose()
    assert (await dispatched.http.get("/readyz")).status_code == 200
    assert not any((await dispatched.groups()).values())
    dispatched.proxy.heal()
    await eventually(dispatched.all_started, "every group has its workflow")
    pushed = BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=1)

    async def is_imported() -> bool:
        return await dispatched.is_running(pushed, "apply")

    await eventually(is_imported, "the pushed batch has its workflow")


async def push(dispatched: Dispatched) -> BatchRef:
    """A batch of results, as the link brings it."""
    link = LinkClient(dispatched.url, HttpSigner(dispatched.networks.response.keys, "test"))
    receipt = await link.push(StreamName.RESULTS, await seal(dispatched.networks.response, StreamName.RESULTS, b"{}"))
    await link.aclose()
    return BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=receipt.received)


async def test_a_batch_that_somebody_stands_by_for_has_a_workflow_only_where_it_is_not_applied_in_time(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LEFT_SECONDS", 600.0)  # nothing is taken for left meanwhile
    monkeypatch.setattr(dispatching, "GRACE_SECONDS", 0.3)
    request = dispatched.networks.request
    async with hearing(request) as standby, standby.by(received(StreamName.RESULTS)) as post:
        assert post is not None
        applied = await push(dispatched)
        async with asyncio.timeout(10):
            await post.said.wait()
        async with request.engine.begin() as connection:
            await mark_applied(connection, applied.stream, applied.epoch, applied.sequence)
        left = await push(dispatched)

        async def is_imported() -> bool:
            return await dispatched.is_running(left, "apply")

        await eventually(is_imported, "the batch that nobody applied has its workflow")
        assert not await dispatched.is_running(applied, "apply")


async def test_a_batch_that_nobody_stands_by_for_has_its_workflow_at_once(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LEFT_SECONDS", 600.0)
    monkeypatch.setattr(dispatching, "GRACE_SECONDS", 600.0)
    pushed = await push(dispatched)

    async def is_imported() -> bool:
        return await dispatched.is_running(pushed, "apply")

    await eventually(is_imported, "the batch has its workflow")


async def test_nobody_waits_for_a_temporal_that_hangs(dispatched: Dispatched) -> None:
    accepted = await dispatched.http.post("/v1/requests", json=IST)
    await eventually(dispatched.all_started, "the connection to Temporal is open")
    dispatched.proxy.passing.clear()
    async with asyncio.timeout(dispatching.RPC_SECONDS.total_seconds() * 0.8):
        assert (await dispatched.http.post("/v1/requests", json=IST)).status_code == 202
        assert (await dispatched.http.delete(f"/v1/requests/{accepted.json()['id']}")).status_code == 200
    dispatched.proxy.heal()
    await eventually(dispatched.all_started, "every group has its workflow")


async def test_a_group_that_was_left_by_another_process_is_started(dispatched: Dispatched) -> None:
    sealer = Sealer(dispatched.networks.request.keys, "test")
    async with dispatched.networks.request.engine.begin() as connection:
        batch = await sealer.seal(connection, StreamName.REQUESTS, [b"{}"])
        query = "INSERT INTO request_groups (epoch, sequence, size) VALUES (1, :sequence, 1) RETURNING 1"
        await rows(connection, query, sequence=batch.sequence)

    async def is_started() -> bool:
        return (await dispatched.groups())[batch]

    await eventually(is_started, "the group that nobody started")
    assert await dispatched.is_running(batch, "fulfil")


async def test_a_group_whose_request_is_cancelled_is_told_to_look(dispatched: Dispatched) -> None:
    (request_id,) = (await dispatched.http.post("/v1/requests", json=IST)).json()["ids"]
    await eventually(dispatched.all_started, "the group has its workflow")
    (group,) = await dispatched.leaders()
    workflow = dispatched.client.get_workflow_handle(group.workflow_id("fulfil"))

    async def is_told() -> bool:
        events = (await workflow.fetch_history()).events
        signals = [each.workflow_execution_signaled_event_attributes.signal_name for each in events]
        return "results_arrived" in signals

    assert not await is_told()
    assert (await dispatched.http.delete(f"/v1/requests/{request_id}")).status_code == 200
    await eventually(is_told, "the workflow has the signal")
