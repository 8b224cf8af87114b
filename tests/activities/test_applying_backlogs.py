"""Applying many results: what comes meanwhile is applied too, and costs do not grow."""

import asyncio

import pytest

from activities.importing import ImportActivities
from exchange.transfer.incoming import lock_applying
from fulfilment import applying, result_store
from fulfilment.request_store import group_state
from fulfilment.result_store import ArrivedResult, store_results
from models.streams import BatchRef, StreamName
from storage.database import value
from storage.notices import NotificationListener
from tests.activities.crossing import USER, change, cross, new_id, one, quarantined, result_record, submit
from tests.activities.residents import apply, attend_briefly
from tests.conftest import Networks
from tests.listening import eventually

RESULTS = StreamName.RESULTS


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    attend_briefly(monkeypatch)


@pytest.fixture
def importing(networks: Networks) -> ImportActivities:
    return ImportActivities(networks.request.engine, NotificationListener())


async def somebody_waits_for_a_lock(networks: Networks) -> bool:
    return bool(await one(networks.request, "SELECT count(*) FROM pg_locks WHERE NOT granted"))


async def test_a_batch_that_comes_while_one_is_applied_is_taken_along(
    networks: Networks, importing: ImportActivities
) -> None:
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    first = await cross(networks, RESULTS, [result_record(ids[0])])
    async with networks.request.engine.begin() as connection:
        await lock_applying(connection, RESULTS)
        applying_run = asyncio.create_task(apply(networks.request, importing, first))
        await eventually(lambda: somebody_waits_for_a_lock(networks))
        for key in ids[1:]:
            await cross(networks, RESULTS, [result_record(key)])
    assert (await applying_run).batches == 3
    assert await one(networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'results'") == 3


async def test_two_attempts_of_one_run_apply_each_batch_once(networks: Networks, importing: ImportActivities) -> None:
    """The worker of the first, which was given up for dead, may live."""
    ids = [new_id() for _ in range(12)]
    await submit(networks, *ids)
    batches = [await cross(networks, RESULTS, [result_record(key)]) for key in ids]
    other = ImportActivities(networks.request.engine, NotificationListener())
    outcomes = await asyncio.gather(*(apply(networks.request, work, batches[0]) for work in (importing, other)))
    assert sum(outcome.batches for outcome in outcomes) == sum(outcome.records for outcome in outcomes) == 12
    assert await one(networks.request, "SELECT count(*) FROM results") == 12
    assert await quarantined(networks.request) == []


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_results_in_several_statements_and_slices_are_as_those_in_one(
    networks: Networks, importing: ImportActivities, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(result_store, "AT_ONCE", at_once)
    monkeypatch.setattr(applying, "SLICE", at_once)
    known = [new_id() for _ in range(3)]
    await submit(networks, *known)
    records = [result_record(key) for key in (known[0], new_id(), known[1], known[0], known[2])]
    outcome = await apply(networks.request, importing, await cross(networks, RESULTS, records))
    assert (outcome.records, outcome.quarantined) == (3, 2)
    assert [number for number, _ in await quarantined(networks.request)] == [2, 4]
    assert await one(networks.request, "SELECT count(*) FROM results") == 3


async def test_a_batch_is_applied_by_keys_however_many_rows_there_are(networks: Networks) -> None:
    """While the tables are joined as a whole, each batch costs what all batches before it left there."""
    ids = [new_id() for _ in range(3000)]
    group = await submit(networks, *ids)
    await change(
        networks.request,
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        " SELECT gen_random_uuid(), :user, 'rows', 5, '{}', now(), 1, 1000 + n / 3000 FROM generate_series(1, 60000) n",
        user=USER,
    )
    await change(
        networks.request,
        "INSERT INTO results (request_id, user_id, status, body, epoch, sequence)"
        " SELECT request_id, user_id, 'completed', '', 1, sequence FROM requests WHERE sequence >= 1000",
    )
    await change(networks.request, "ANALYZE requests, results")
    batch = BatchRef(stream=RESULTS, epoch=1, sequence=1)
    arrived = [ArrivedResult(number, key, "completed", b"{}") for number, key in enumerate(ids)]
    read = "SELECT coalesce(sum(seq_tup_read), 0) FROM pg_stat_xact_user_tables WHERE relname = ANY(:tables)"
    async with networks.request.engine.begin() as connection:
        before = await value(connection, read, tables=["requests", "results"])  # of this connection, not reported yet
        assert await store_results(connection, batch, arrived) == set()
        assert (await group_state(connection, group)).outstanding == 0
        assert await value(connection, read, tables=["requests", "results"]) == before
