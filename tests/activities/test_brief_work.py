"""As a local activity, work begins with nothing more once its time is over, and says so; another goes on with it."""

import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr
from temporalio.testing import ActivityEnvironment

from activities import heartbeats
from activities.executing import ExecutionActivities
from activities.importing import ImportActivities
from cache.redis_cache import Cache
from exchange.transfer.sealing import Sealer
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from models.streams import StreamName
from tests.activities import functions
from tests.activities.crossing import LINK, cross, new_id, one, request_record, result_record, submit
from tests.activities.standing_in import Told
from tests.activities.test_executing import Announced
from tests.conftest import Networks

MODULE = "tests.activities.functions"


def in_short() -> ActivityEnvironment:
    """A local activity's; a heartbeat, which it cannot make, fails the test."""
    environment = ActivityEnvironment()
    environment.info = dataclasses.replace(environment.info, is_local=True)
    environment.on_heartbeat = no_heartbeat
    return environment


def no_heartbeat(*details: Any) -> None:
    raise AssertionError(f"a local activity has no heartbeats, but there was one: {details}")


@pytest.fixture
async def executing(networks: Networks) -> AsyncIterator[ExecutionActivities]:
    functions.reset()
    side = networks.response
    executors = Executors(
        SqlSources({"data": SecretStr(side.url)}, 2),
        HttpCalls([]),
        PythonFunctions([MODULE]),
        Cache(networks.servers.redis_url),
    )
    kinds = {"calls": {"kind": "python", "function": f"{MODULE}:rows"}, "asks": {"source": "data", "query": "SELECT 1"}}
    async with side.engine.begin() as connection:
        for name, executor in kinds.items():
            await put_request_type(connection, name, "", {"type": "object"}, {}, {"kind": "sql"} | executor, "test")
    yield ExecutionActivities(side.engine, Sealer(side.keys, LINK), executors, 8, Announced())
    await executors.aclose()
    await executors.cache.aclose()


async def test_results_are_applied_batch_by_batch_until_the_time_is_over(
    networks: Networks, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    importing = ImportActivities(networks.request.engine, cache, 60, Told())
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    batches = [await cross(networks, StreamName.RESULTS, [result_record(key)]) for key in ids]
    monkeypatch.setattr(heartbeats, "BRIEF_SECONDS", -1.0)
    begun = await in_short().run(importing.apply_batches, batches[-1])
    assert (begun.batches, begun.more) == (1, True)
    rest = await ActivityEnvironment().run(importing.apply_batches, batches[-1])
    assert (rest.batches, rest.more) == (2, False)
    assert await one(networks.request, "SELECT count(*) FROM results") == 3


async def test_results_that_are_applied_in_time_leave_nothing(networks: Networks, cache: Cache) -> None:
    importing = ImportActivities(networks.request.engine, cache, 60, Told())
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    batches = [await cross(networks, StreamName.RESULTS, [result_record(key)]) for key in ids]
    outcome = await in_short().run(importing.apply_batches, batches[-1])
    assert (outcome.batches, outcome.more) == (2, False)


async def test_queries_are_executed_in_short(networks: Networks, executing: ExecutionActivities) -> None:
    batch = await cross(networks, StreamName.REQUESTS, [request_record(new_id(), "asks") for _ in range(3)])
    outcome = await in_short().run(executing.execute_batch, batch)
    assert (outcome.by_status, outcome.more) == ({"completed": 3}, False)
    assert await one(networks.response, "SELECT applied_at IS NOT NULL FROM received_batches")


async def test_nothing_that_may_not_be_done_twice_is_begun_with_in_short(
    networks: Networks, executing: ExecutionActivities
) -> None:
    records = [request_record(new_id(), kind) for kind in ("asks", "calls", "no-such-type")]
    batch = await cross(networks, StreamName.REQUESTS, records)
    assert (await in_short().run(executing.execute_batch, batch)).more
    assert functions.ran == []
    outcome = await ActivityEnvironment().run(executing.execute_batch, batch)
    assert (outcome.by_status, outcome.more) == ({"completed": 2, "failed": 1}, False)
    assert functions.ran == ["rows"]


async def test_queries_that_were_not_begun_with_in_time_are_left(
    networks: Networks, executing: ExecutionActivities, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await cross(networks, StreamName.REQUESTS, [request_record(new_id(), "asks") for _ in range(3)])
    monkeypatch.setattr(heartbeats, "BRIEF_SECONDS", -1.0)
    assert (await in_short().run(executing.execute_batch, batch)).more
    assert not await one(networks.response, "SELECT applied_at IS NOT NULL FROM received_batches")
    assert (await ActivityEnvironment().run(executing.execute_batch, batch)).by_status == {"completed": 3}
    assert await one(networks.response, "SELECT count(*) FROM outbox") == 3
