"""What was committed gets its workflow: at once, or as soon as Temporal is back. Nobody waits for that."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.service import RPCError
from temporalio.testing import WorkflowEnvironment

from api.request import dispatching
from api.request.dispatching import MOST_TOGETHER, in_ranges
from embedded.temporal import find_temporal
from exchange.carriers.http import LinkClient
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from fulfilment.group_commit import CommittedGroup
from fulfilment.request_store import store_group
from models import looks
from models.streams import BatchRef, StreamName, named_by
from orchestration.search_attributes import BATCH, RECORDS, STREAM
from storage.attendance import RESULTS, attend
from storage.database import rows
from tests.activities.crossing import change
from tests.activities.residents import attendant
from tests.api_request.proxy import Proxy, proxied
from tests.api_request.serving import AIRPORT, IST, eventually, new_user, publish, serving, settings_for
from tests.conftest import Networks
from tests.link.batches import seal


@dataclass
class Dispatched:
    """An app that reaches Temporal through a proxy."""

    url: str
    http: httpx.AsyncClient
    proxy: Proxy
    networks: Networks
    client: Client

    async def seen(self) -> dict[int, bool]:
        """The number of each group, and whether the database knows of a run that looks after it."""
        async with self.networks.request.engine.connect() as connection:
            found = await rows(connection, "SELECT sequence, seen_at IS NOT NULL FROM request_groups ORDER BY sequence")
        return {sequence: seen for sequence, seen in found}

    async def all_seen(self) -> bool:
        return all((await self.seen()).values())

    async def submit(self, **more: Any) -> str:
        answer = await self.http.post("/v1/requests", json=IST | more)
        assert answer.status_code == 202
        return str(answer.json()["ids"][0])

    async def all_are_seen(self) -> None:
        await eventually(self.all_seen, "every group has its workflow")

    async def described(self, name: str) -> WorkflowExecutionDescription | None:
        try:
            return await self.client.get_workflow_handle(name).describe()
        except RPCError:
            return None

    async def is_running(self, name: str) -> bool:
        found = await self.described(name)
        return found is not None and found.status is WorkflowExecutionStatus.RUNNING  # an earlier test's was terminated

    async def runs(self, name: str) -> None:
        async def is_running() -> bool:
            return await self.is_running(name)

        await eventually(is_running, f"{name} runs")


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
                    with suppress(RPCError):  # the list lags behind
                        await temporal.client.get_workflow_handle(workflow.id).terminate()


async def test_many_calls_at_once_become_few_groups_and_fewer_workflows(dispatched: Dispatched) -> None:
    await asyncio.gather(*(dispatched.submit() for _ in range(60)))
    await dispatched.all_are_seen()
    groups = await dispatched.seen()
    assert len(groups) < 30
    covered: list[int] = []

    async def each_has_its_workflow() -> bool:
        found = dispatched.client.list_workflows("WorkflowType = 'FulfillRequests' AND ExecutionStatus = 'Running'")
        ranges = [batch async for listed in found if (batch := named_by(listed.id))]
        covered[:] = sorted(number for batch in ranges for number in range(batch.begin, batch.sequence + 1))
        return len(covered) >= len(groups)

    await eventually(each_has_its_workflow, "Temporal lists the workflows")
    assert covered == list(groups), "each group has one"


async def test_groups_that_come_close_together_share_a_workflow_which_waits_no_longer_once_one_is_in_a_hurry(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TOGETHER_SECONDS", 600.0)
    monkeypatch.setattr(looks, "LOOKS", (3600.0,))
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 600.0)  # nothing is taken for left meanwhile
    hurries: list[dict[str, Any]] = [{"callback_url": "https://example.org/"}, {"deadline": 60}]
    for first, hurry in zip((1, 4), hurries, strict=True):
        for _ in range(2):
            await dispatched.submit()
        assert not await dispatched.all_seen()
        await dispatched.submit(**hurry)
        await dispatched.all_are_seen()
        found = await dispatched.described(f"fulfil-requests-1.{first}-{first + 2}")
        assert found is not None
        assert found.execution_time is not None
        waits = (found.execution_time - found.start_time).total_seconds()
        assert waits == 0 if "callback_url" in hurry else 0 < waits <= 60


async def test_a_deadline_is_looked_at_in_time_however_long_its_group_waited_for_others(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "TOGETHER_SECONDS", 0.5)
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 600.0)
    await dispatched.submit(deadline=3)
    await dispatched.all_are_seen()
    found = await dispatched.described("fulfil-requests-1.1")
    assert found is not None
    assert found.execution_time is not None
    assert 0 < (found.execution_time - found.start_time).total_seconds() <= 2.5


async def test_what_comes_while_temporal_is_away_is_accepted_and_started_when_it_is_back(
    dispatched: Dispatched,
) -> None:
    await dispatched.proxy.cut()
    for _ in range(3):
        request_id = await dispatched.submit()
    assert (await dispatched.http.delete(f"/v1/requests/{request_id}")).status_code == 200
    await push(dispatched)
    assert (await dispatched.http.get("/readyz")).status_code == 200
    assert not any((await dispatched.seen()).values())
    dispatched.proxy.heal()
    await dispatched.all_are_seen()
    await dispatched.runs("apply-results-1.1")


async def push(dispatched: Dispatched) -> None:
    """A batch of results, as the link brings it."""
    link = LinkClient(dispatched.url, HttpSigner(dispatched.networks.response.keys, "test"))
    await link.push(StreamName.RESULTS, await seal(dispatched.networks.response, StreamName.RESULTS, b"{}"))
    await link.aclose()


async def test_results_have_a_workflow_at_once_and_what_follows_is_left_to_it_while_it_attends(
    dispatched: Dispatched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "LOOK_SECONDS", 600.0)  # nothing is taken for left meanwhile
    await push(dispatched)
    await dispatched.runs("apply-results-1.1")
    await push(dispatched)
    await change(dispatched.networks.request, "UPDATE attendances SET attended_until = now()")
    await push(dispatched)
    await dispatched.runs("apply-results-1.3")
    assert not await dispatched.is_running("apply-results-1.2")


async def test_a_batch_whose_run_died_has_another_when_nobody_attends_any_more(dispatched: Dispatched) -> None:
    request = dispatched.networks.request
    async with request.engine.begin() as connection:
        assert await attend(connection, RESULTS, "of another process")
    await change(request, "UPDATE attendances SET attended_until = now() + interval '1 hour'")
    for _ in range(2):
        await push(dispatched)
    await change(request, "UPDATE attendances SET attended_until = now()")
    await dispatched.runs("apply-results-1.2")
    assert await attendant(request) == "apply-results-1.2"
    assert not await dispatched.is_running("apply-results-1.1"), "one run applies them all"


async def test_nobody_waits_for_a_temporal_that_hangs(dispatched: Dispatched) -> None:
    request_id = await dispatched.submit()
    await dispatched.all_are_seen()
    dispatched.proxy.passing.clear()
    async with asyncio.timeout(dispatching.RPC_SECONDS.total_seconds() * 0.8):
        await dispatched.submit()
        assert (await dispatched.http.delete(f"/v1/requests/{request_id}")).status_code == 200
    dispatched.proxy.heal()
    await dispatched.all_are_seen()


async def test_a_group_that_was_left_by_another_process_is_started(dispatched: Dispatched) -> None:
    sealer = Sealer(dispatched.networks.request.keys, "test")
    async with dispatched.networks.request.engine.begin() as connection:
        batch = await sealer.seal(connection, StreamName.REQUESTS, [b"{}"])
        await store_group(connection, batch, 1)
    await dispatched.all_are_seen()
    assert await dispatched.is_running(batch.workflow_id("fulfil"))


async def test_a_group_whose_run_was_lost_has_another(dispatched: Dispatched) -> None:
    await dispatched.submit()
    await dispatched.all_are_seen()
    await dispatched.client.get_workflow_handle("fulfil-requests-1.1").terminate()
    await change(dispatched.networks.request, "UPDATE request_groups SET seen_at = now() - interval '181 s'")
    await dispatched.runs("fulfil-requests-1.1")


def group(sequence: int, records: int = 1, epoch: int = 1) -> CommittedGroup:
    return CommittedGroup(BatchRef(stream=StreamName.REQUESTS, epoch=epoch, sequence=sequence, records=records), 0.0)


@pytest.mark.parametrize(
    ("groups", "ranges"),
    [
        ([], []),
        ([group(3), group(1), group(2)], [[1, 2, 3]]),
        ([group(1), group(1, epoch=2), group(2)], [[1, 2], [1]]),
        ([group(1, MOST_TOGETHER - 1), group(2), group(3)], [[1, 2], [3]]),
        ([group(1, 2 * MOST_TOGETHER), group(2)], [[1], [2]]),
    ],
)
def test_groups_are_looked_after_together_up_to_a_number_of_requests(
    groups: list[CommittedGroup], ranges: list[list[int]]
) -> None:
    assert [[each.group.sequence for each in some] for some in in_ranges(groups)] == ranges
