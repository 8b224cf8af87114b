"""Executing a batch: a stored result for every request, exactly once, whatever happens on the way."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import orjson
import pytest
from pydantic import SecretStr
from temporalio.testing import ActivityEnvironment

from activities import executing
from activities.executing import ExecutionActivities
from cache.redis_cache import Cache
from exchange.transfer.sealing import Sealer
from execution import rechecks
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.registry import Executors
from execution.request_types import put_request_type
from execution.sql import SqlSources
from models.outcomes import ExecutionOutcome
from models.streams import BatchRef, StreamName
from tests.activities import functions
from tests.activities.crossing import (
    LINK,
    cancellation,
    change,
    cross,
    new_id,
    one,
    quarantined,
    request_record,
    table,
)
from tests.conftest import Networks
from tests.listening import eventually

REQUESTS = StreamName.REQUESTS
MODULE = "tests.activities.functions"


@pytest.fixture
async def executors(networks: Networks) -> AsyncIterator[Executors]:
    functions.reset()
    opened = Executors(
        SqlSources({"data": SecretStr(networks.response.url)}, 2),
        HttpCalls([]),
        PythonFunctions([MODULE]),
        Cache(networks.servers.redis_url),
    )
    async with networks.response.engine.begin() as connection:
        for name in ("rows", "waits", "counts", "fails"):
            executor = {"kind": "python", "function": f"{MODULE}:{name}"}
            await put_request_type(connection, name, "", {"type": "object"}, {}, executor, "test")
    yield opened
    await opened.aclose()
    await opened.cache.aclose()


def activities(networks: Networks, executors: Executors, concurrency: int = 8) -> ExecutionActivities:
    side = networks.response
    return ExecutionActivities(side.engine, Sealer(side.keys, LINK), executors, concurrency)


async def execute(worker: ExecutionActivities, batch: BatchRef) -> ExecutionOutcome:
    outcome: ExecutionOutcome = await ActivityEnvironment().run(worker.execute_batches, batch)
    return outcome


async def results(networks: Networks) -> dict[UUID, str]:
    return {key: status for key, status in await table(networks.response, "SELECT request_id, status FROM results")}


async def has_results(networks: Networks, count: int) -> bool:
    return len(await results(networks)) == count


async def outbox(networks: Networks) -> list[bytes]:
    found = await table(networks.response, "SELECT body FROM outbox WHERE stream = 'results' ORDER BY id")
    return [body for (body,) in found]


async def stored_once(networks: Networks, ids: list[UUID]) -> None:
    """Every request has one result, and the outbox holds exactly these, byte for byte."""
    assert set(await results(networks)) == set(ids)
    bodies = await outbox(networks)
    assert sorted(orjson.loads(body)["request_id"] for body in bodies) == sorted(map(str, ids))
    assert sorted(bodies) == sorted(body for (body,) in await table(networks.response, "SELECT body FROM results"))


async def test_every_request_gets_one_result_in_the_outbox_and_the_batch_is_applied(
    networks: Networks, executors: Executors
) -> None:
    ids = [new_id() for _ in range(20)]
    types = ["rows", "fails", "no-such-type"]
    batch = await cross(networks, REQUESTS, [request_record(id_, types[n % 3]) for n, id_ in enumerate(ids)])
    outcome = await execute(activities(networks, executors), batch)
    assert (outcome.records, outcome.by_status, outcome.quarantined) == (20, {"completed": 7, "failed": 13}, 0)
    await stored_once(networks, ids)
    assert await one(networks.response, "SELECT applied_at IS NOT NULL FROM received_batches")
    assert await one(networks.response, "SELECT applied FROM incoming_streams WHERE stream = 'requests'") == 1


async def test_a_batch_executed_again_changes_nothing_and_runs_nothing(
    networks: Networks, executors: Executors
) -> None:
    ids = [new_id() for _ in range(5)]
    batch = await cross(networks, REQUESTS, [request_record(id_) for id_ in ids])
    worker = activities(networks, executors)
    first = await execute(worker, batch)
    assert await execute(worker, batch) == first
    await stored_once(networks, ids)
    assert len(functions.ran) == 5


async def test_two_runs_of_one_batch_at_the_same_time_store_each_result_once(
    networks: Networks, executors: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "FLUSH_RESULTS", 7)
    ids = [new_id() for _ in range(150)]
    batch = await cross(networks, REQUESTS, [request_record(id_, priority=n % 10 + 1) for n, id_ in enumerate(ids)])
    workers = [activities(networks, executors) for _ in range(3)]
    outcomes = await asyncio.gather(*(execute(worker, batch) for worker in workers))
    assert [outcome.by_status for outcome in outcomes] == [{"completed": 150}] * 3
    await stored_once(networks, ids)


async def test_a_run_that_is_killed_after_a_flush_goes_on_where_it_was(
    networks: Networks, executors: Executors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "FLUSH_RESULTS", 1)
    ids = [new_id() for _ in range(6)]
    records = [request_record(id_, priority=9) for id_ in ids[:4]]
    records += [request_record(id_, "waits", priority=1) for id_ in ids[4:]]
    batch = await cross(networks, REQUESTS, records)
    run = asyncio.create_task(execute(activities(networks, executors, 4), batch))
    await eventually(lambda: has_results(networks, 4))
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert not await one(networks.response, "SELECT applied_at IS NOT NULL FROM received_batches")
    before = dict(await table(networks.response, "SELECT request_id, body FROM results"))
    functions.let_go()
    await execute(activities(networks, executors), batch)
    await stored_once(networks, ids)
    after = dict(await table(networks.response, "SELECT request_id, body FROM results"))
    assert {key: after[key] for key in before} == before
    assert len(functions.ran) == 4, "what had a result was not run again"


async def test_an_early_result_does_not_wait_for_a_late_one(networks: Networks, executors: Executors) -> None:
    ids = [new_id(), new_id()]
    batch = await cross(networks, REQUESTS, [request_record(ids[0], "waits"), request_record(ids[1])])
    run = asyncio.create_task(execute(activities(networks, executors), batch))
    await eventually(lambda: has_results(networks, 1))
    assert set(await results(networks)) == {ids[1]}
    assert not run.done()
    functions.let_go()
    await run
    await stored_once(networks, ids)


async def test_malformed_records_are_set_aside_with_a_reason_and_block_nothing(
    networks: Networks, executors: Executors
) -> None:
    good = new_id()
    far = "0001-01-01T00:00:00+23:00"
    records = [
        b"not json",
        b"[]",
        b'{"kind":"request"}',
        request_record(new_id(), priority=11),
        request_record(new_id(), "rows\0"),
        request_record(new_id(), "Rows; DROP TABLE"),
        request_record(new_id(), submitted_at=far),
        request_record(new_id(), deadline_at=far),
        request_record(new_id(), "rows").replace(b'"request_id":"', b'"request_id":"\\u0000'),
        request_record(new_id(), secret="x"),
        b'{"params":' + b"[" * 5000 + b"]" * 5000 + b"}",
        request_record(good),
    ]
    batch = await cross(networks, REQUESTS, records)
    outcome = await execute(activities(networks, executors), batch)
    assert (outcome.by_status, outcome.quarantined) == ({"completed": 1}, 11)
    await stored_once(networks, [good])
    aside = await quarantined(networks.response)
    assert [number for number, _ in aside] == list(range(1, 12))
    assert all(reason.startswith("not a request: ") for _, reason in aside)
    assert await one(networks.response, "SELECT quarantined FROM incoming_streams WHERE stream = 'requests'") == 11
    assert await one(networks.response, "SELECT body FROM quarantined_records WHERE record = 1") == b"not json"


async def test_parameters_that_are_hard_to_say_in_json_do_not_block_their_batch(
    networks: Networks, executors: Executors
) -> None:
    ids = [new_id() for _ in range(4)]
    odd = [b"1" + b"0" * 30, b"NaN", b"1e999", b'"\\u0000"']
    records = [request_record(i, params={"n": 0}).replace(b'"n":0', b'"n":' + n) for i, n in zip(ids, odd, strict=True)]
    batch = await cross(networks, REQUESTS, records)
    outcome = await execute(activities(networks, executors), batch)
    assert sum(outcome.by_status.values()) + outcome.quarantined == 4
    assert set(outcome.by_status) == {"failed"}


async def test_an_id_that_comes_twice_is_executed_once_and_the_other_record_set_aside(
    networks: Networks, executors: Executors
) -> None:
    twice, other = new_id(), new_id()
    records = [request_record(twice, "rows"), request_record(twice, "counts"), request_record(other)]
    batch = await cross(networks, REQUESTS, records)
    await execute(activities(networks, executors), batch)
    again = await cross(networks, REQUESTS, [request_record(twice, "counts"), request_record(new_id())])
    outcome = await execute(activities(networks, executors), again)
    assert (outcome.by_status, outcome.quarantined) == ({"completed": 1}, 1)
    assert await quarantined(networks.response) == [
        (2, "the batch holds this request id twice"),
        (4, "this request id came in an earlier batch, with another request"),
    ]
    assert len(await results(networks)) == 3
    assert await one(networks.response, "SELECT type FROM results WHERE request_id = :id", id=twice) == "rows"


async def test_a_request_cancelled_before_its_execution_is_not_run_and_its_result_says_cancelled(
    networks: Networks, executors: Executors
) -> None:
    kept, dropped, before = new_id(), new_id(), new_id()
    await execute(activities(networks, executors), await cross(networks, REQUESTS, [cancellation(before)]))
    records = [request_record(kept), request_record(dropped), cancellation(dropped), request_record(before)]
    await execute(activities(networks, executors), await cross(networks, REQUESTS, records))
    assert await results(networks) == {kept: "completed", dropped: "cancelled", before: "cancelled"}
    assert len(functions.ran) == 1


async def test_a_cancellation_that_comes_after_the_result_changes_nothing(
    networks: Networks, executors: Executors
) -> None:
    done = new_id()
    worker = activities(networks, executors)
    await execute(worker, await cross(networks, REQUESTS, [request_record(done)]))
    await execute(worker, await cross(networks, REQUESTS, [cancellation(done)]))
    assert await results(networks) == {done: "completed"}
    assert len(await outbox(networks)) == 1


async def test_a_request_whose_deadline_has_passed_is_not_run(networks: Networks, executors: Executors) -> None:
    late = new_id()
    record = request_record(late, deadline_at="2020-01-01T00:00:00Z")
    await execute(activities(networks, executors), await cross(networks, REQUESTS, [record]))
    assert await results(networks) == {late: "expired"}
    assert functions.ran == []


async def test_requests_are_executed_in_order_of_priority(networks: Networks, executors: Executors) -> None:
    priorities = [n % 10 + 1 for n in range(100)]
    records = [request_record(new_id(), "counts", {"n": p}, priority=p) for p in priorities]
    batch = await cross(networks, REQUESTS, records)
    await execute(activities(networks, executors, concurrency=1), batch)
    assert functions.ran == sorted(priorities, reverse=True)


async def test_a_type_that_cannot_be_used_fails_its_own_requests_only(networks: Networks, executors: Executors) -> None:
    await change(networks.response, """UPDATE request_types SET executor = '{"kind":"fax"}' WHERE name = 'counts'""")
    good, bad = new_id(), new_id()
    batch = await cross(networks, REQUESTS, [request_record(good), request_record(bad, "counts")])
    await execute(activities(networks, executors), batch)
    assert await results(networks) == {good: "completed", bad: "failed"}


async def test_a_retired_type_fails_its_requests_with_the_reason(networks: Networks, executors: Executors) -> None:
    await change(networks.response, "UPDATE request_types SET retired_at = now() WHERE name = 'rows'")
    await execute(activities(networks, executors), await cross(networks, REQUESTS, [request_record(new_id())]))
    assert await table(networks.response, "SELECT status, reason FROM results") == [("failed", "unknown-type")]


@pytest.fixture
async def half_done(networks: Networks, executors: Executors) -> AsyncIterator[tuple[asyncio.Task[object], list[UUID]]]:
    """A range under way: the first request is executing, and four of each type have not begun."""
    ids = [new_id() for _ in range(9)]
    records = [request_record(ids[0], "waits", priority=9)]
    records += [request_record(each, "rows") for each in ids[1:5]] + [
        request_record(each, "counts") for each in ids[5:]
    ]
    batch = await cross(networks, REQUESTS, records)
    run: asyncio.Task[object] = asyncio.create_task(execute(activities(networks, executors, concurrency=1), batch))

    async def begun() -> bool:
        return bool(functions.waiting)

    await eventually(begun)
    yield run, ids
    await run


@pytest.mark.usefixtures("_at_each_request")
async def test_a_type_that_is_retired_takes_effect_on_what_has_not_begun(
    networks: Networks, half_done: tuple[asyncio.Task[object], list[UUID]]
) -> None:
    run, ids = half_done
    await change(networks.response, "UPDATE request_types SET retired_at = now() WHERE name IN ('rows', 'waits')")
    functions.let_go()
    await run
    found = await results(networks)
    assert [found[each] for each in ids] == ["completed"] + ["failed"] * 4 + ["completed"] * 4
    assert functions.ran == [0] * 4


@pytest.mark.usefixtures("_at_each_request")
async def test_a_type_that_is_corrected_takes_effect_on_what_has_not_begun(
    networks: Networks, half_done: tuple[asyncio.Task[object], list[UUID]]
) -> None:
    run, _ = half_done
    async with networks.response.engine.begin() as connection:
        corrected = {"kind": "python", "function": f"{MODULE}:counts"}
        await put_request_type(connection, "rows", "", {"type": "object"}, {}, corrected, "test")
    functions.let_go()
    await run
    assert functions.ran == [0] * 8


@pytest.mark.usefixtures("_at_each_request")
async def test_a_cancellation_and_a_deadline_take_effect_on_what_has_not_begun(
    networks: Networks, executors: Executors, half_done: tuple[asyncio.Task[object], list[UUID]]
) -> None:
    run, ids = half_done
    later = await cross(networks, REQUESTS, [cancellation(ids[1]), cancellation(ids[5])])
    await execute(activities(networks, executors), later)
    await change(networks.response, "UPDATE requests SET deadline_at = now() WHERE request_id = :key", key=ids[2])
    functions.let_go()
    await run
    found = await results(networks)
    assert [found[each] for each in (ids[1], ids[2], ids[5])] == ["cancelled", "expired", "cancelled"]
    assert len(functions.ran) == 5


@pytest.fixture
def _at_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rechecks, "RECHECK_SECONDS", 0.0)


async def test_a_batch_that_is_not_here_is_done_at_once(networks: Networks, executors: Executors) -> None:
    worker = activities(networks, executors)
    assert (await execute(worker, BatchRef(stream=REQUESTS, epoch=1, sequence=99))).by_status == {}
