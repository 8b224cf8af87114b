"""Rows that no batch explains are moved, whole, and can come back; rows that a batch explains never are."""

import asyncio
import hashlib
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.audit.summaries import Finding
from exchange.errors import LinkError
from exchange.recovery.local_side import LocalSide
from exchange.recovery.orphans import put_row_back, rows_set_aside
from exchange.recovery.remote_side import RemoteSide
from exchange.wire.batch import pack
from exchange.wire.manifest import Manifest
from models.streams import Network, StreamName
from tests.activities.crossing import USER, change, new_id, one, table
from tests.verification.test_verifying import THREE_ROWS
from tests.verification.world import REQUESTS, RESULTS, RETENTION, World, found


def local_side(world: World, network: Network) -> LocalSide:
    side = world.networks.request if network is Network.REQUEST else world.networks.response
    return LocalSide(side.engine, network, RETENTION, side.keys)


async def test_a_row_that_was_set_aside_comes_back_with_every_column(world: World) -> None:
    await world.answered()
    side, added = world.networks.request, new_id()
    await change(side, THREE_ROWS.replace("'{}'", r"'\x00ff00'"), id=added, user=USER)
    whole = await table(side, "SELECT * FROM results WHERE request_id = :id", id=added)
    await world.repair()
    assert await one(side, "SELECT count(*) FROM results WHERE request_id = :id", id=added) == 0
    async with side.engine.begin() as connection:
        (kept,) = await rows_set_aside(connection, 0, 10)
        assert (kept.table, kept.request_id, kept.row["body"]) == ("results", added, r"\x00ff00")
        assert "batch 1.1 of results" in kept.reason
        assert await put_row_back(connection, kept.number) == ("results", added)
        assert await put_row_back(connection, kept.number) is None
    assert await table(side, "SELECT * FROM results WHERE request_id = :id", id=added) == whole
    assert found(await world.verify()) == {("request", "results", "extra", str(added))}


async def test_ten_thousand_extra_rows_are_all_kept(world: World) -> None:
    """As in a receiver that was restored without its batches."""
    await world.answered()
    side = world.networks.request
    await change(
        side,
        "INSERT INTO results (request_id, user_id, status, body, epoch, sequence)"
        " SELECT gen_random_uuid(), :user, 'completed', '{}', 1, 100 + n % 50 FROM generate_series(1, 12000) AS n",
        user=USER,
    )
    reports, outcome = await world.repair()
    assert (found(reports), outcome.set_aside) == (set(), 12000)
    assert await one(side, "SELECT count(DISTINCT request_id) FROM set_aside") == 12000
    assert await one(side, "SELECT count(*) FROM results") == 3


async def test_rows_whose_batch_is_missing_are_not_set_aside_even_if_it_cannot_come_back(world: World) -> None:
    for _ in range(3):
        await world.answered(2)
    await change(world.networks.request, "DELETE FROM received_batches WHERE stream = 'results' AND sequence = 2")
    await change(world.networks.response, "UPDATE sealed_batches SET payload = NULL WHERE stream = 'results'")
    await change(world.networks.request, THREE_ROWS.replace("1, 1)", "1, 99)"), id=new_id(), user=USER)
    reports, outcome = await world.repair()
    assert ("request", "received_batches", "missing", "2") in found(reports)
    assert outcome.set_aside == 1, "the one that names a batch which never was"
    assert await one(world.networks.request, "SELECT count(*) FROM results") == 6


async def test_a_result_never_sealed_is_set_aside_and_its_request_executed_again(world: World) -> None:
    """Nothing signed says that it is real, and its owner still waits."""
    first, second = await world.submitted(2)
    batch = await world.pull.once(REQUESTS, 0)
    assert batch is not None
    await world.execute(batch)
    side = world.networks.response
    await change(side, "DELETE FROM outbox WHERE convert_from(body, 'UTF8') LIKE '%' || :id || '%'", id=str(first))
    assert found(await world.verify()) == {("response", "results", "extra", str(first))}
    reports, outcome = await world.repair()
    assert (found(reports), outcome.set_aside, outcome.taken_up_again) == (set(), 1, True)
    assert await one(side, "SELECT request_id FROM set_aside") == first
    await world.execute(batch)
    await world.carry_on()
    assert found(await world.verify()) == set()
    arrived = {item for (item,) in await table(world.networks.request, "SELECT request_id FROM results")}
    assert arrived == {first, second}


async def test_a_request_that_no_batch_holds_is_set_aside_in_either_network(world: World) -> None:
    await world.answered()
    insert = (
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        " VALUES (:id, :id, 'rows', 5, '{}', now(), :epoch, :sequence)"
    )
    for side in (world.networks.request, world.networks.response):
        for epoch, sequence in ((1, 1), (1, 99), (0, -1)):
            await change(side, insert, id=new_id(), epoch=epoch, sequence=sequence)
    reports, outcome = await world.repair()
    assert (found(reports), outcome.set_aside) == (set(), 6)


async def test_a_batch_that_its_sender_did_not_sign_sets_nothing_aside(world: World) -> None:
    """It lacks a record that the genuine one holds."""
    await world.answered(2)
    side = world.networks.request
    manifest = Manifest.model_validate_json(
        await one(side, "SELECT manifest FROM received_batches WHERE stream = 'results' AND sequence = 1")
    )
    body = await one(side, "SELECT body FROM results LIMIT 1")
    raw, payload = pack([body])
    changed = manifest.model_copy(
        update={
            "count": 1,
            "last_record": manifest.first_record,
            "raw_bytes": raw,
            "payload_bytes": len(payload),
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
        }
    )
    content = changed.model_dump_json().encode()
    await change(
        side,
        "UPDATE received_batches SET manifest = :manifest, hash = sha256(:manifest), payload = :payload, records = 1"
        " WHERE stream = 'results' AND sequence = 1",
        manifest=content,
        payload=payload,
    )
    with pytest.raises(LinkError):
        await local_side(world, Network.REQUEST).repair(RESULTS, 1, 1)
    assert await one(side, "SELECT count(*) FROM set_aside") == 0
    assert await one(side, "SELECT count(*) FROM results") == 2


class Late(LocalSide):
    """Between the look and the move, somebody else has changed the row: as though a batch had just been applied."""

    world: World
    request_id: UUID

    async def orphans_in(self, connection: AsyncConnection, stream: StreamName, most: int) -> list[Finding]:
        found = await super().orphans_in(connection, stream, most)
        if found:
            side = self.world.networks.request
            await change(side, "UPDATE results SET sequence = 1 WHERE request_id = :id", id=self.request_id)
        return found


async def test_a_row_that_changed_since_it_was_looked_at_is_not_set_aside(world: World) -> None:
    genuine, *_ = await world.answered()
    side = world.networks.request
    await change(side, "UPDATE results SET sequence = 77 WHERE request_id = :id", id=genuine)
    late = Late(side.engine, Network.REQUEST, RETENTION, side.keys)
    vars(late).update(world=world, request_id=genuine)
    outcome = await late.repair(RESULTS, 1, 0)
    assert outcome.set_aside == 0
    assert await one(side, "SELECT count(*) FROM set_aside") == 0
    assert found(await world.verify()) == set()


async def test_repairing_a_live_system_sets_nothing_aside_that_belongs_there(world: World) -> None:
    done = asyncio.Event()

    async def working() -> None:
        while not done.is_set():
            await world.submitted(5)
            await world.carry_on()

    work = asyncio.create_task(working())
    try:
        for _ in range(4):
            for stream in (REQUESTS, RESULTS):
                for network in Network:
                    end = local_side(world, network) if network is Network.RESPONSE else RemoteSide(world.link)
                    assert (await end.repair(stream, 1, 0)).set_aside == 0
                    assert (await end.repair(stream, 1, 1)).did_something is False
    finally:
        done.set()
        await work
    assert found(await world.verify()) == set()


@pytest.mark.parametrize("network", list(Network))
async def test_setting_aside_twice_is_setting_aside_once(world: World, network: Network) -> None:
    await world.answered()
    side = world.networks.request if network is Network.REQUEST else world.networks.response
    await change(
        side,
        "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
        " VALUES (:id, :id, 'rows', 5, '{}', now(), 1, 99)",
        id=new_id(),
    )
    both = await asyncio.gather(*(local_side(world, network).repair(REQUESTS, 1, 0) for _ in range(2)))
    assert sum(each.set_aside for each in both) == 1
    assert await one(side, "SELECT count(*) FROM set_aside") == 1
