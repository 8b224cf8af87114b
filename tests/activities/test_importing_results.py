"""Applying results in the request network: byte for byte, once, and only for requests that are known there."""

from uuid import UUID

import pytest

from activities.importing import ImportActivities
from fulfilment.request_store import cancel_request, find_request
from fulfilment.result_store import outcomes_among
from models.streams import StreamName
from storage.notices import NotificationListener
from tests.activities.crossing import (
    USER,
    change,
    cross,
    new_id,
    one,
    quarantined,
    result_record,
    submit,
    table,
)
from tests.activities.residents import apply, attend_briefly
from tests.conftest import Networks

RESULTS = StreamName.RESULTS


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    attend_briefly(monkeypatch)


@pytest.fixture
def importing(networks: Networks) -> ImportActivities:
    return ImportActivities(networks.request.engine, NotificationListener())


async def stored(networks: Networks) -> dict[UUID, bytes]:
    return {key: body for key, body in await table(networks.request, "SELECT request_id, body FROM results")}


async def status(networks: Networks, request_id: UUID) -> str:
    async with networks.request.engine.connect() as connection:
        found = await find_request(connection, USER, request_id)
    assert found is not None
    return str(found.status)


async def test_results_are_stored_byte_for_byte(networks: Networks, importing: ImportActivities) -> None:
    ids = [new_id(), new_id()]
    await submit(networks, *ids)
    bodies = [result_record(ids[0], data='[{"b" : 1.50, "a":"é"}]'), result_record(ids[1], "failed")]
    outcome = await apply(networks.request, importing, await cross(networks, RESULTS, bodies))
    assert (outcome.batches, outcome.records, outcome.quarantined) == (1, 2, 0)
    assert await stored(networks) == dict(zip(ids, bodies, strict=True))
    assert [await status(networks, key) for key in ids] == ["completed", "failed"]
    assert await one(networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'results'") == 1


async def test_a_batch_applied_again_changes_nothing(networks: Networks, importing: ImportActivities) -> None:
    key = new_id()
    await submit(networks, key)
    batch = await cross(networks, RESULTS, [result_record(key)])
    await apply(networks.request, importing, batch)
    before = await table(networks.request, "SELECT * FROM results")
    assert (await apply(networks.request, importing, batch)).batches == 0
    assert await table(networks.request, "SELECT * FROM results") == before
    assert await quarantined(networks.request) == []


async def test_a_result_that_comes_again_with_the_same_bytes_is_no_news(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    for _ in range(2):
        outcome = await apply(networks.request, importing, await cross(networks, RESULTS, [result_record(key)]))
    assert (outcome.batches, outcome.records, outcome.quarantined) == (1, 0, 0)


async def test_another_result_for_a_request_that_has_one_is_set_aside_and_the_first_stays(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    first, other = result_record(key), result_record(key, data="[2]")
    await apply(networks.request, importing, await cross(networks, RESULTS, [first]))
    await apply(networks.request, importing, await cross(networks, RESULTS, [other]))
    assert await stored(networks) == {key: first}
    assert await quarantined(networks.request) == [(2, "another result for a request that has one")]


async def test_what_cannot_be_applied_is_set_aside_with_a_reason_and_blocks_nothing(
    networks: Networks, importing: ImportActivities
) -> None:
    key, unknown = new_id(), new_id()
    await submit(networks, key)
    records = [
        result_record(unknown),
        b"torn",
        b"[]",
        b'"text"',
        b'{"status":"completed","data":[]}',
        result_record(key, "queued"),
        result_record(key, data='"none"'),
        b'{"request_id":"\\u0000","status":"completed","data":[]}',
        result_record(key),
        result_record(key, data="[2]"),
    ]
    outcome = await apply(networks.request, importing, await cross(networks, RESULTS, records))
    assert (outcome.records, outcome.quarantined) == (1, 9)
    assert await stored(networks) == {key: result_record(key)}
    reasons = dict(await quarantined(networks.request))
    assert reasons[1] == "a result for a request that is not known here"
    assert reasons[10] == "the batch holds a result for this request twice"
    assert all(reasons[number].startswith("not a result: ") for number in range(2, 9))
    assert await one(networks.request, "SELECT body FROM quarantined_records WHERE record = 2") == b"torn"


async def test_a_late_result_after_a_cancellation_is_kept_and_not_served(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    async with networks.request.engine.begin() as connection:
        assert await cancel_request(connection, USER, key)
    await apply(networks.request, importing, await cross(networks, RESULTS, [result_record(key)]))
    assert await status(networks, key) == "cancelled"
    async with networks.request.engine.connect() as connection:
        (found,) = await outcomes_among(connection, [key], [])
    assert found.closed == "cancelled"


async def test_a_request_with_a_result_can_be_cancelled_no_more(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    await apply(networks.request, importing, await cross(networks, RESULTS, [result_record(key)]))
    async with networks.request.engine.begin() as connection:
        assert not await cancel_request(connection, USER, key)
    assert await status(networks, key) == "completed"


async def test_all_batches_that_are_there_are_applied_in_order_by_one_run(
    networks: Networks, importing: ImportActivities
) -> None:
    ids = [new_id() for _ in range(4)]
    await submit(networks, *ids)
    batches = [await cross(networks, RESULTS, [result_record(key)]) for key in ids]
    assert (await apply(networks.request, importing, batches[2])).batches == 4
    assert await one(networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'results'") == 4
    in_order = "SELECT request_id FROM results ORDER BY received_at"
    assert [key for (key,) in await table(networks.request, in_order)] == ids


async def test_a_result_belongs_to_the_owner_of_its_request_whatever_it_says(
    networks: Networks, importing: ImportActivities
) -> None:
    key, other = new_id(), new_id()
    await submit(networks, key)
    body = result_record(key, more=f',"user_id":"{other}"')
    await apply(networks.request, importing, await cross(networks, RESULTS, [body]))
    assert await one(networks.request, "SELECT user_id FROM results") == USER
    async with networks.request.engine.connect() as connection:
        (found,) = await outcomes_among(connection, [key], [])
    assert found.user_id == USER


async def test_a_batch_that_fails_to_apply_leaves_nothing_half_done(
    networks: Networks, importing: ImportActivities
) -> None:
    key = new_id()
    await submit(networks, key)
    batch = await cross(networks, RESULTS, [result_record(key)])
    await change(networks.request, "UPDATE received_batches SET payload = 'damaged on disk'")
    with pytest.raises(Exception, match="payload"):
        await apply(networks.request, importing, batch)
    assert await stored(networks) == {}
    assert not await one(networks.request, "SELECT applied_at IS NOT NULL FROM received_batches")
