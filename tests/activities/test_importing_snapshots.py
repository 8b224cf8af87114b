"""Applying snapshots in the request network: the newest wins, whole or not at all."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from temporalio.testing import ActivityEnvironment

from activities.importing import ImportActivities
from cache.redis_cache import Cache
from exchange.transfer.outgoing import batch_after, lock_sealing
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from fulfilment.snapshots import apply_snapshot
from models.outcomes import ApplyOutcome
from models.streams import BatchRef, StreamName
from storage.notices import NotificationListener
from tests.activities.crossing import LINK, cross_snapshot, deliver, one, quarantined, table
from tests.conftest import Networks

SETTINGS = StreamName.SETTINGS


@pytest.fixture
async def importing(networks: Networks) -> AsyncIterator[ImportActivities]:
    cache = Cache(networks.servers.redis_url)
    yield ImportActivities(networks.request.engine, NotificationListener())
    await cache.aclose()


async def apply(importing: ImportActivities, batch: BatchRef) -> ApplyOutcome:
    outcome: ApplyOutcome = await ActivityEnvironment().run(importing.apply_and_attend, batch)
    return outcome


def setting(number: int, value: Any = 1) -> bytes:
    return orjson.dumps({"kind": "setting", "name": f"s{number}", "value": value, "version": 1})


async def snapshot(networks: Networks, stream: StreamName = SETTINGS) -> list[bytes] | None:
    found = await one(networks.request, "SELECT records FROM snapshots WHERE stream = :stream", stream=stream)
    return None if found is None else bytes(found).split(b"\n")


async def states(networks: Networks) -> list[tuple[Any, ...]]:
    return await table(
        networks.request,
        "SELECT sequence, applied_at IS NOT NULL, superseded FROM received_batches ORDER BY sequence",
    )


async def test_a_snapshot_is_stored_byte_for_byte_and_replaces_the_one_before(
    networks: Networks, importing: ImportActivities
) -> None:
    odd = b'{"kind" : "setting","name":"a","value":1.50,"version":1}'
    [first] = await cross_snapshot(networks, SETTINGS, [odd, setting(1)])
    await apply(importing, first)
    assert await snapshot(networks) == [odd, setting(1)]
    [second] = await cross_snapshot(networks, SETTINGS, [setting(2)])
    assert (await apply(importing, second)).records == 1
    assert await snapshot(networks) == [setting(2)]


async def test_an_empty_snapshot_takes_everything_away(networks: Networks, importing: ImportActivities) -> None:
    for records in ([setting(1)], []):
        [batch] = await cross_snapshot(networks, SETTINGS, records)
        await apply(importing, batch)
    assert await snapshot(networks) == [b""]


async def test_an_older_snapshot_that_is_applied_later_is_superseded(
    networks: Networks, importing: ImportActivities
) -> None:
    [old] = await cross_snapshot(networks, SETTINGS, [setting(1)])
    [new] = await cross_snapshot(networks, SETTINGS, [setting(2)])
    await apply_snapshot(networks.request.engine, new, ApplyOutcome())
    outcome = await apply(importing, old)
    assert (outcome.superseded, outcome.records) == (1, 0)
    assert await snapshot(networks) == [setting(2)]
    assert await states(networks) == [(1, True, True), (2, True, False)]


async def test_several_snapshots_that_wait_end_with_the_newest(networks: Networks, importing: ImportActivities) -> None:
    for number in range(3):
        [newest] = await cross_snapshot(networks, SETTINGS, [setting(number)])
    assert (await apply(importing, newest)).batches == 3
    assert await snapshot(networks) == [setting(2)]


async def test_a_snapshot_of_several_parts_is_applied_only_when_it_is_complete(
    networks: Networks, importing: ImportActivities
) -> None:
    [before] = await cross_snapshot(networks, SETTINGS, [setting(0, "before")])
    await apply(importing, before)
    records = [setting(number) for number in range(10_003)]
    side = networks.response
    async with side.engine.begin() as connection:
        parts = await Sealer(side.keys, LINK).seal_snapshot(connection, SETTINGS, records)
    assert [part.records for part in parts] == [5000, 5000, 3]
    for part in parts[:2]:
        await deliver(networks, SETTINGS, part)
        assert (await apply(importing, part)).batches == 0
        assert await snapshot(networks) == [setting(0, "before")]
    await deliver(networks, SETTINGS, parts[2])
    outcome = await apply(importing, parts[2])
    assert (outcome.batches, outcome.records) == (3, 10_003)
    assert await snapshot(networks) == records
    assert await states(networks) == [(number, True, False) for number in range(1, 5)]
    assert await one(networks.request, "SELECT applied FROM incoming_streams WHERE stream = 'settings'") == 4


async def test_a_bad_record_is_set_aside_under_its_own_number_and_the_rest_is_applied(
    networks: Networks, importing: ImportActivities
) -> None:
    records = [setting(number) for number in range(5002)]
    records[3] = b'{"kind":"setting","name":"S P A C E","value":1,"version":1}'
    records[5001] = b'{"kind":"request-type","name":"leaky","version":1,"executor":{"kind":"sql"}}'
    parts = await cross_snapshot(networks, SETTINGS, records)
    outcome = await apply(importing, parts[-1])
    assert (outcome.records, outcome.quarantined) == (5000, 2)
    assert [number for number, _ in await quarantined(networks.request)] == [4, 5002]
    assert await table(networks.request, "SELECT sequence FROM quarantined_records ORDER BY record") == [(1,), (2,)]
    assert await snapshot(networks) == [record for n, record in enumerate(records) if n not in (3, 5001)]


async def test_a_last_part_without_its_others_is_set_aside_and_the_snapshot_stays(
    networks: Networks, importing: ImportActivities
) -> None:
    """A valid signature on a batch that claims parts which were never sent as such."""
    [before] = await cross_snapshot(networks, SETTINGS, [setting(0, "before")])
    await apply(importing, before)
    side = networks.response
    sealer = Sealer(side.keys, LINK)
    async with side.engine.begin() as connection:
        await lock_sealing(connection, SETTINGS)
        lone = await sealer._seal(connection, SETTINGS, [setting(1), setting(2)], part=2, parts=2)
        stored = await batch_after(connection, SETTINGS, 1, lone.sequence - 1)
    assert stored is not None
    assert stored.payload is not None
    wire = to_wire(stored.manifest, stored.signature, stored.payload)
    await Receiver(networks.request.engine, networks.request.keys, LINK).accept(SETTINGS, wire)
    outcome = await apply(importing, lone)
    assert (outcome.records, outcome.quarantined) == (0, 2)
    assert await snapshot(networks) == [setting(0, "before")]
    assert await quarantined(networks.request) == [
        (2, "parts of this snapshot are missing"),
        (3, "parts of this snapshot are missing"),
    ]


async def test_a_health_snapshot_needs_to_be_json_and_nothing_more(
    networks: Networks, importing: ImportActivities
) -> None:
    [batch] = await cross_snapshot(networks, StreamName.HEALTH, [b'{"status":"ok"}', b"torn"])
    assert (await apply(importing, batch)).quarantined == 1
    assert await snapshot(networks, StreamName.HEALTH) == [b'{"status":"ok"}']
