"""Results that were set aside in the request network: retried by the code that applies batches, or dropped."""

import asyncio

import pytest

from exchange.audit.stored_rows import mark_unapplied
from exchange.transfer.incoming import lock_applying, mark_applied
from exchange.transfer.quarantine_store import list_quarantined, quarantine
from fulfilment.callback_store import callbacks_due
from models.errors import Conflict, InvalidInput, NotFound
from models.streams import Network, StreamName
from storage.database import autocommit, value
from tests.activities.crossing import change, cross, new_id, one, result_record, submit, table
from tests.quarantine.conftest import World

RESULTS = StreamName.RESULTS
OPEN = "SELECT record FROM quarantined_records WHERE applied_at IS NULL AND dropped_at IS NULL ORDER BY record"


async def test_what_lacked_its_request_is_applied_by_a_retry_once_the_request_is_there(world: World) -> None:
    request_id, known = new_id(), new_id()
    await submit(world.networks, known)
    early = result_record(request_id)
    batch = await cross(world.networks, RESULTS, [early, result_record(known)])
    await world.apply(batch)
    assert await world.count_in_receipt(RESULTS) == 1
    assert await world.audit(RESULTS) == (1, 1, 0)
    await submit(world.networks, request_id, callback="http://hooks.example/")
    [outcome] = await world.quarantine(Network.REQUEST).retry(RESULTS, 1, 1)
    assert outcome.refused is None
    assert await one(world.networks.request, "SELECT body FROM results WHERE request_id = :id", id=request_id) == early
    async with world.networks.request.engine.connect() as connection:
        assert [each.request_id for each in await callbacks_due(connection, 9)] == [request_id], "its owner is called"
    assert await world.count_in_receipt(RESULTS) == 0, "so that the alert over there clears"
    assert await world.audit(RESULTS) == (2, 0, 0), "what a retry applied is compared again"
    with pytest.raises(Conflict, match="was applied by a retry"):
        await world.quarantine(Network.REQUEST).retry(RESULTS, 1, 1)


async def test_what_is_still_refused_stays_with_the_new_reason_and_the_first_result_stays_the_first(
    world: World,
) -> None:
    request_id = new_id()
    other = result_record(request_id, data="[2]")
    await world.apply(await cross(world.networks, RESULTS, [other]))
    await submit(world.networks, request_id)
    first = result_record(request_id, data="[1]")
    await world.apply(await cross(world.networks, RESULTS, [first]))
    for tries in (1, 2):
        [outcome] = await world.quarantine(Network.REQUEST).retry(RESULTS, 1, 1)
        assert outcome.refused == "another result for a request that has one"
        row = await table(world.networks.request, "SELECT reason, retries, body FROM quarantined_records")
        assert row == [(outcome.refused, tries, other)]
    assert await table(world.networks.request, "SELECT body FROM results") == [(first,)]
    assert await world.count_in_receipt(RESULTS) == 1


async def test_all_are_retried_each_for_itself(world: World) -> None:
    ids = [new_id(), new_id(), new_id()]
    await world.apply(await cross(world.networks, RESULTS, [*map(result_record, ids), b"torn"]))
    await submit(world.networks, ids[0], ids[2])
    outcomes = await world.quarantine(Network.REQUEST).retry_all(RESULTS)
    assert [(item.record, item.refused is None) for item in outcomes] == [(1, True), (2, False), (3, True), (4, False)]
    assert await table(world.networks.request, OPEN) == [(2,), (4,)]
    assert await world.count_in_receipt(RESULTS) == 2


async def test_what_is_being_quarantined_is_waited_for_and_retried_with_the_others(world: World) -> None:
    request_id = new_id()
    batch = await cross(world.networks, RESULTS, [result_record(request_id)])
    side = world.networks.request
    async with side.engine.begin() as connection:
        await lock_applying(connection, RESULTS)  # as the run that applies, which does not see the request yet
        await quarantine(connection, batch, [(1, result_record(request_id), "a result for an unknown request")])
        await mark_applied(connection, RESULTS, batch.epoch, batch.sequence)
        await submit(world.networks, request_id)
        retrying = asyncio.create_task(world.quarantine(Network.REQUEST).retry_all(RESULTS))
        async with autocommit(side.engine) as watching:
            async with asyncio.timeout(20):
                while not await value(watching, "SELECT count(*) FROM pg_locks WHERE NOT granted"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert [(item.record, item.refused) for item in await retrying] == [(1, None)]


async def test_a_dropped_record_is_kept_with_who_and_why_and_is_never_applied_again(world: World) -> None:
    request_id = new_id()
    batch = await cross(world.networks, RESULTS, [result_record(request_id)])
    await world.apply(batch)
    quarantine = world.quarantine(Network.REQUEST)
    dropped = await quarantine.drop(RESULTS, 1, 1, "olga", "made by a test \0")
    assert (dropped.dropped_by, dropped.drop_reason, dropped.is_open) == ("olga", "made by a test \ufffd", False)
    assert await world.count_in_receipt(RESULTS) == 0
    assert await world.audit(RESULTS) == (0, 1, 0), "it still counts as set aside: no row is expected of it"
    with pytest.raises(Conflict, match="was dropped by olga: made by a test"):
        await quarantine.retry(RESULTS, 1, 1)
    with pytest.raises(Conflict, match="was dropped by olga"):
        await quarantine.drop(RESULTS, 1, 1, "ulf", "again")
    await submit(world.networks, request_id)
    async with world.networks.request.engine.begin() as connection:
        await mark_unapplied(connection, RESULTS, 1, 1)
        assert [item.record for item in await list_quarantined(connection, [RESULTS], dropped=True)] == [1]
        assert await list_quarantined(connection, [RESULTS]) == []
    await world.apply(batch)
    assert await table(world.networks.request, "SELECT request_id FROM results") == []
    assert await table(world.networks.request, "SELECT dropped_by FROM quarantined_records") == [("olga",)]


async def test_a_batch_applied_once_more_leaves_an_open_record_to_the_operator(world: World) -> None:
    request_id = new_id()
    batch = await cross(world.networks, RESULTS, [result_record(request_id)])
    await world.apply(batch)
    await submit(world.networks, request_id)
    await change(world.networks.request, "UPDATE received_batches SET applied_at = NULL")
    await world.apply(batch)
    assert await table(world.networks.request, OPEN) == [(1,)]
    assert await table(world.networks.request, "SELECT request_id FROM results") == [], "open and applied is a lie"


async def test_a_poison_record_blocks_nothing_that_follows(world: World) -> None:
    ids = [new_id(), new_id()]
    await submit(world.networks, *ids)
    first = await cross(world.networks, RESULTS, [b"\xff\x00poison", result_record(ids[0])])
    second = await cross(world.networks, RESULTS, [result_record(ids[1])])
    await world.apply(first, second)
    assert len(await table(world.networks.request, "SELECT request_id FROM results")) == 2
    assert await one(world.networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'results'") == 2


async def test_a_decision_needs_a_record_a_reason_and_the_right_network(world: World) -> None:
    await world.apply(await cross(world.networks, RESULTS, [b"torn"]))
    quarantine = world.quarantine(Network.REQUEST)
    with pytest.raises(NotFound, match=r"record 1\.2 of results is not in quarantine"):
        await quarantine.drop(RESULTS, 1, 2, "olga", "because")
    with pytest.raises(InvalidInput, match="who drops the record and why"):
        await quarantine.drop(RESULTS, 1, 1, "olga", "  ")
    with pytest.raises(NotFound, match="quarantined in the request network"):
        await world.quarantine(Network.RESPONSE).retry(RESULTS, 1, 1)
    assert await table(world.networks.request, OPEN) == [(1,)]
