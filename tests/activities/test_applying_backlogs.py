"""Applying many results: one run takes along what comes meanwhile, nothing is left over, and costs do not grow."""

import asyncio

import pytest

from activities import applying
from activities.importing import ImportActivities
from cache.redis_cache import Cache, result_key
from exchange.transfer.incoming import ReceivedBatch, lock_applying, lock_receiving, store_received
from exchange.transfer.receiving import Receiver
from exchange.wire.batch import open_wire
from fulfilment.request_store import fulfilled_groups
from fulfilment.result_store import ArrivedResult, store_results
from models.streams import BatchRef, StreamName
from storage import result_store
from storage.database import value
from tests.activities.crossing import USER, change, cross, new_id, one, quarantined, result_record, submit
from tests.activities.standing_in import Told
from tests.activities.test_importing_results import apply
from tests.conftest import Networks
from tests.link.batches import seal

RESULTS = StreamName.RESULTS


@pytest.fixture
def importing(networks: Networks, cache: Cache) -> ImportActivities:
    return ImportActivities(networks.request.engine, cache, 60, Told())


async def until_somebody_waits_for_a_lock(networks: Networks) -> None:
    async with asyncio.timeout(10):
        while not await one(networks.request, "SELECT count(*) FROM pg_locks WHERE NOT granted"):
            pass


async def test_a_batch_that_comes_while_one_is_applied_is_taken_along(
    networks: Networks, importing: ImportActivities
) -> None:
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    first = await cross(networks, RESULTS, [result_record(ids[0])])
    async with networks.request.engine.begin() as connection:
        await lock_applying(connection, RESULTS)
        applying_run = asyncio.create_task(apply(importing, first))
        await until_somebody_waits_for_a_lock(networks)
        for key in ids[1:]:
            await cross(networks, RESULTS, [result_record(key)])
    assert (await applying_run).batches == 3
    assert await one(networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'results'") == 3


async def test_a_run_does_not_end_before_an_acceptance_that_counts_on_it(
    networks: Networks, importing: ImportActivities
) -> None:
    ids = [new_id() for _ in range(2)]
    await submit(networks, *ids)
    first = await cross(networks, RESULTS, [result_record(ids[0])])
    wire = await seal(networks.response, RESULTS, result_record(ids[1]))
    second, _ = open_wire(networks.request.keys, wire)
    async with networks.request.engine.begin() as accepting:  # as `Receiver.accept` while batch 1 is not applied yet
        await lock_receiving(accepting, RESULTS)
        applying_run = asyncio.create_task(apply(importing, first))
        await until_somebody_waits_for_a_lock(networks)
        manifest = second.manifest
        stored = ReceivedBatch(1, 2, manifest.first_record, 1, second.manifest_bytes, second.signature, second.payload)
        await store_received(accepting, RESULTS, [(stored, second.hash)])
    assert (await applying_run).batches == 2


async def test_only_a_batch_with_nothing_unapplied_before_it_has_to_be_told_of(
    networks: Networks, importing: ImportActivities
) -> None:
    ids = [new_id() for _ in range(3)]
    await submit(networks, *ids)
    wires = [await seal(networks.response, RESULTS, result_record(key)) for key in ids]
    receiver = Receiver(networks.request.engine, networks.request.keys, "test")
    first = await receiver.accept(RESULTS, wires[0])
    assert first.begins_applying
    assert not (await receiver.accept(RESULTS, wires[1])).begins_applying
    await apply(importing, first.batch)
    assert (await receiver.accept(RESULTS, wires[2])).begins_applying
    assert not (await receiver.accept(RESULTS, wires[2])).begins_applying  # it was told of the first time
    for _ in range(2):  # the parts of a snapshot that is not complete wait unapplied
        snapshot = await seal(networks.response, StreamName.HEALTH, b"{}")
        assert (await receiver.accept(StreamName.HEALTH, snapshot)).begins_applying


async def test_two_workers_apply_each_batch_once_and_one_leaves_the_rest_to_the_other(
    networks: Networks, cache: Cache
) -> None:
    ids = [new_id() for _ in range(12)]
    await submit(networks, *ids)
    batches = [await cross(networks, RESULTS, [result_record(key)]) for key in ids]
    workers = [ImportActivities(networks.request.engine, cache, 60, Told()) for _ in range(2)]
    outcomes = await asyncio.gather(*(apply(worker, batches[-1]) for worker in workers))
    assert sum(outcome.batches for outcome in outcomes) == sum(outcome.records for outcome in outcomes) == 12
    assert await one(networks.request, "SELECT count(*) FROM results") == 12
    assert await quarantined(networks.request) == []


async def test_runs_that_wait_for_their_turn_hold_no_connection(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    batch = await cross(networks, RESULTS, [result_record(key)])
    async with networks.request.engine.begin() as connection:
        await lock_applying(connection, RESULTS)
        applying_runs = [asyncio.create_task(apply(importing, batch)) for _ in range(8)]
        await until_somebody_waits_for_a_lock(networks)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'advisory'"
        assert await one(networks.request, waiting) == 1
    assert sum(outcome.batches for outcome in await asyncio.gather(*applying_runs)) == 1


async def test_results_that_somebody_may_wait_for_are_cached_and_a_backlog_is_not(
    networks: Networks, importing: ImportActivities, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applying, "WAITED_FOR", 2)
    ids = [new_id() for _ in range(5)]
    await submit(networks, *ids)
    for some in (ids[:2], ids[2:]):
        await apply(importing, await cross(networks, RESULTS, [result_record(key) for key in some]))
    assert [await cache.get(result_key(USER, key)) is not None for key in ids] == [True] * 2 + [False] * 3


@pytest.mark.parametrize("at_once", [1, 2, 1000])
async def test_results_in_several_statements_and_slices_are_as_those_in_one(
    networks: Networks, importing: ImportActivities, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(result_store, "AT_ONCE", at_once)
    monkeypatch.setattr(applying, "SLICE", at_once)
    known = [new_id() for _ in range(3)]
    await submit(networks, *known)
    records = [result_record(key) for key in (known[0], new_id(), known[1], known[0], known[2])]
    outcome = await apply(importing, await cross(networks, RESULTS, records))
    assert (outcome.records, outcome.quarantined) == (3, 2)
    assert [number for number, _ in await quarantined(networks.request)] == [2, 4]
    assert await one(networks.request, "SELECT count(*) FROM results") == 3


async def test_a_batch_is_applied_by_keys_however_many_rows_there_are(networks: Networks) -> None:
    """While the tables are joined as a whole, each batch costs what all batches before it left there."""
    ids = [new_id() for _ in range(3000)]
    await submit(networks, *ids)
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
        assert [each.group.sequence for each in await fulfilled_groups(connection, batch)] == [1]
        assert await value(connection, read, tables=["requests", "results"]) == before
