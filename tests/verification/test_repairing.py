"""Repairing puts back the original bytes, from the nearest place that has them, and says what it cannot do."""

import hashlib

import pytest

from cache.redis_cache import Cache, result_key
from configuration.redis_url import redis_database
from exchange.errors import Fork, LinkError
from exchange.recovery.remote_side import RemoteSide
from exchange.wire.batch import pack, to_wire
from exchange.wire.manifest import Manifest, sign_manifest
from models.streams import Network, StreamName
from tests.activities.crossing import USER, change, new_id, one, table
from tests.api_request.serving import setting
from tests.conftest import Side
from tests.verification.test_verifying import THREE_ROWS
from tests.verification.world import REQUESTS, RESULTS, World, found


async def contents(side: Side) -> list[tuple[object, ...]]:
    """What callers may read, and whose it is."""
    return await table(
        side, "SELECT request_id, user_id, status, body, epoch, sequence FROM results ORDER BY request_id"
    )


async def test_missing_and_changed_results_come_back_byte_for_byte_and_a_third_row_is_set_aside(world: World) -> None:
    gone, changed, _ = await world.answered()
    side = world.networks.request
    before = await contents(side)
    added = new_id()
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    await change(side, "UPDATE results SET body = 'x', status = 'failed' WHERE request_id = :id", id=changed)
    await change(side, THREE_ROWS, id=added, user=USER)
    cache = Cache(redis_database(world.networks.servers.redis_url, 3))
    await cache.put(result_key(USER, changed), b"x", 60)

    await cache.put(result_key(USER, added), b"x", 60)

    reports, outcome = await world.repair()
    assert (found(reports), outcome.left) == (set(), {})
    assert (outcome.rebuilt, outcome.set_aside) == (2, 1)
    assert await contents(side) == before
    assert [await cache.get(result_key(USER, item)) for item in (changed, added)] == [None, None]
    await cache.aclose()


async def test_a_batch_gone_or_altered_is_sent_again_and_then_its_rows_are_rebuilt_from_it(world: World) -> None:
    for _ in range(4):
        await world.answered(2)
    side = world.networks.request
    before = await contents(side)
    kept = (
        "SELECT sequence, hash, manifest, signature, payload FROM received_batches WHERE stream = 'results' ORDER BY 1"
    )
    batches = await table(side, kept)
    batch = "WHERE stream = 'results' AND sequence = :n"
    await change(side, f"DELETE FROM received_batches {batch}", n=1)
    await change(side, f"UPDATE received_batches SET payload = NULL {batch}", n=2)
    await change(side, f"UPDATE received_batches SET manifest = manifest || ' ', hash = sha256(manifest) {batch}", n=3)
    await change(
        side, f"UPDATE received_batches SET payload = set_byte(payload, 12, get_byte(payload, 12) # 1) {batch}", n=4
    )
    await change(side, "UPDATE results SET body = 'x' WHERE sequence IN (1, 4)")
    await change(side, "DELETE FROM results WHERE sequence IN (2, 3)")
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left) == (set(), {})
    assert outcome.rebuilt == 4 + 8
    assert (await contents(side), await table(side, kept)) == (before, batches)


async def test_a_batch_of_requests_is_pulled_again(world: World) -> None:
    await world.answered()
    side = world.networks.response
    await change(side, "UPDATE received_batches SET payload = set_byte(payload, 12, get_byte(payload, 12) # 1)")
    assert found(await world.verify()) == {("response", "received_batches", "different", "1")}
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left) == (set(), {})


async def test_a_lost_request_that_has_no_result_is_executed_after_all(world: World) -> None:
    await world.submitted(2)
    batch = await world.pull.once(REQUESTS, 0)
    assert batch is not None
    await world.execute(batch)
    side = world.networks.response
    first = await one(side, "SELECT min(request_id::text) FROM requests")
    for statement in ("DELETE FROM results WHERE request_id = :id", "DELETE FROM requests WHERE request_id = :id"):
        await change(side, statement, id=first)
    await change(side, "DELETE FROM outbox WHERE convert_from(body, 'UTF8') LIKE '%' || :id || '%'", id=first)
    reports, outcome = await world.repair()
    assert (found(reports), outcome.taken_up_again) == (set(), True)
    assert reports[1].in_flight == 2, "the batch is applied once more"
    await world.execute(batch)
    await world.carry_on()
    assert found(await world.verify()) == set()
    assert await one(world.networks.request, "SELECT count(*) FROM results") == 2


@pytest.mark.parametrize("network", list(Network))
async def test_requests_come_back_in_either_network(world: World, network: Network) -> None:
    gone, changed, _ = await world.answered()
    side = world.networks.request if network is Network.REQUEST else world.networks.response
    every = (
        "SELECT request_id, user_id, type, priority, params, submitted_at, deadline_at, epoch, sequence FROM requests"
    )
    before = await table(side, f"{every} ORDER BY request_id")
    await change(side, "DELETE FROM requests WHERE request_id = :id", id=gone)
    await change(side, "UPDATE requests SET priority = 1, user_id = :u WHERE request_id = :id", id=changed, u=new_id())
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left) == (set(), {})
    assert await table(side, f"{every} ORDER BY request_id") == before


async def test_results_and_snapshots_come_back(world: World) -> None:
    await world.publish(setting("colour", "blue"))
    gone, changed, _ = await world.answered()
    side = world.networks.response
    every = "SELECT request_id, type, status, reason, returned, total, body FROM results ORDER BY request_id"
    before = await table(side, every)
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    await change(side, "UPDATE results SET body = 'x' WHERE request_id = :id", id=changed)
    await change(world.networks.request, "UPDATE snapshots SET records = 'x'")
    reports, _ = await world.repair()
    assert found(reports) == set()
    assert await table(side, every) == before
    assert await one(world.networks.request, "SELECT records FROM snapshots") == setting("colour", "blue")


async def test_a_wrong_snapshot_of_which_no_payload_is_left_is_sealed_anew(world: World) -> None:
    await world.publish(setting("colour", "blue"))
    await change(world.networks.request, "UPDATE snapshots SET records = 'x'")
    for side, name in ((world.networks.request, "received"), (world.networks.response, "sealed")):
        done = "applied_at" if name == "received" else "delivered_at"
        await change(side, f"UPDATE {name}_batches SET payload = NULL, {done} = '2020-01-01'")
    wrong = {("request", "snapshots", "different", "1")}
    reports, outcome = await world.repair()
    assert (found(reports), list(outcome.left)) == (wrong, ["the snapshot of settings"])
    assert found(await world.verify()) == wrong, "nothing is claimed before it has crossed"
    await world.publish(setting("colour", "blue"))
    assert found(await world.verify()) == set()
    assert await one(world.networks.request, "SELECT records FROM snapshots") == setting("colour", "blue")


async def test_another_batch_than_the_chain_goes_on_from_is_not_taken(world: World) -> None:
    await world.answered(1)
    await world.answered(1)
    far = RemoteSide(world.link)
    second = await one(
        world.networks.response, "SELECT payload FROM sealed_batches WHERE stream = 'results' AND sequence = 2"
    )
    other = await _sealed_otherwise(world)
    with pytest.raises(Fork):
        await far.restore(RESULTS, other)
    stored = "SELECT payload FROM received_batches WHERE stream = 'results' AND sequence = 2"
    assert await one(world.networks.request, stored) == second
    with pytest.raises(LinkError):
        await far.restore(StreamName.REQUESTS, other)


async def _sealed_otherwise(world: World) -> bytes:
    """Batch 2 of results, validly signed, with another payload."""
    side = world.networks.response
    manifest = Manifest.model_validate_json(
        await one(side, "SELECT manifest FROM sealed_batches WHERE stream = 'results' AND sequence = 2")
    )
    raw, payload = pack([b'{"forged":true}'])
    changed = manifest.model_copy(
        update={
            "raw_bytes": raw,
            "payload_bytes": len(payload),
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
        }
    )
    content, signature = sign_manifest(side.keys, changed)
    return to_wire(content, signature, payload)
