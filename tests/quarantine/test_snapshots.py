"""Records of snapshots that were set aside: a snapshot is one thing, and only the one in force is worth a retry."""

from typing import Any

import orjson
import pytest

from fulfilment import snapshots
from models.streams import BatchRef, Network, StreamName
from tests.activities.crossing import change, cross_snapshot, one, table
from tests.quarantine.conftest import World

SETTINGS = StreamName.SETTINGS


def setting(number: int) -> bytes:
    return orjson.dumps({"kind": "setting", "name": f"s{number}", "value": 1, "version": 1})


async def apply_with_an_older_version(
    world: World, monkeypatch: pytest.MonkeyPatch, batches: list[BatchRef], *unreadable: bytes
) -> None:
    """One that cannot read these records."""

    def bad_records(_stream: StreamName, numbered: Any, _complete: bool) -> list[tuple[int, bytes, str]]:
        return [(number, line, "of a newer version") for number, line in numbered if line in unreadable]

    with monkeypatch.context() as patched:
        patched.setattr(snapshots, "bad_records", bad_records)
        await world.apply(*batches)


async def snapshot(world: World) -> list[bytes]:
    return bytes(await one(world.networks.request, "SELECT records FROM snapshots")).split(b"\n")


async def test_the_snapshot_in_force_is_made_whole_when_its_records_can_be_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [setting(number) for number in range(5003)]
    batches = await cross_snapshot(world.networks, SETTINGS, records)
    assert len(batches) == 2
    await apply_with_an_older_version(world, monkeypatch, batches, records[1], records[3], records[5001])
    assert len(await snapshot(world)) == 5000
    await world.quarantine(Network.REQUEST).drop(SETTINGS, 1, 4, "olga", "not wanted here")
    outcomes = await world.quarantine(Network.REQUEST).retry(SETTINGS, 1, 5002)
    assert [(item.record, item.refused) for item in outcomes] == [(2, None), (5002, None)], "all open ones of it"
    assert await snapshot(world) == records[:3] + records[4:], "in order, without what was dropped"
    assert await world.count_in_receipt(SETTINGS) == 0
    _, _, findings = await world.audit(SETTINGS)
    assert findings == 0


async def test_a_record_that_is_bad_stays_and_the_others_of_its_snapshot_are_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [setting(1), b'{"kind":"nonsense"}', setting(3)]
    batches = await cross_snapshot(world.networks, SETTINGS, records)
    await apply_with_an_older_version(world, monkeypatch, batches, *records[1:])
    outcomes = await world.quarantine(Network.REQUEST).retry_all(SETTINGS)
    assert {item.record: item.refused is None for item in outcomes} == {2: False, 3: True}
    assert await snapshot(world) == [records[0], records[2]]


async def test_what_a_later_snapshot_replaced_is_not_brought_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await cross_snapshot(world.networks, SETTINGS, [setting(1), setting(2)])
    await apply_with_an_older_version(world, monkeypatch, old, setting(2))
    await world.apply(*await cross_snapshot(world.networks, SETTINGS, [setting(3)]))
    [outcome] = await world.quarantine(Network.REQUEST).retry(SETTINGS, 1, 2)
    assert outcome.refused == "superseded: snapshot 1.2 is in force, nothing is left to apply: drop it"
    assert await snapshot(world) == [setting(3)]


async def test_where_a_part_is_past_retention_nothing_is_changed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = await cross_snapshot(world.networks, SETTINGS, [setting(1), setting(2)])
    await apply_with_an_older_version(world, monkeypatch, batches, setting(2))
    await change(world.networks.request, "UPDATE received_batches SET payload = NULL")
    [outcome] = await world.quarantine(Network.REQUEST).retry(SETTINGS, 1, 2)
    assert outcome.refused == "a part of this snapshot is past retention: airlock verify --repair"
    assert await snapshot(world) == [setting(1)]
    state = "SELECT applied_at, retries FROM quarantined_records"
    assert await table(world.networks.request, state) == [(None, 1)]
