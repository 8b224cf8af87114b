"""A sender's own batch that is damaged or gone comes back from its receiver, who has the signed bytes."""

import hashlib

import pytest

from exchange.audit.auditor import Auditor
from exchange.errors import LinkError
from exchange.recovery.local_side import LocalSide
from exchange.recovery.remote_side import RemoteSide
from models.streams import Network, StreamName
from tests.activities.crossing import change, one, table
from tests.conftest import Side
from tests.verification.world import REQUESTS, RESULTS, RETENTION, World, found

KEPT = (
    "SELECT stream, epoch, sequence, first_record, records, raw_bytes, hash, manifest, signature, payload, sealed_at"
    " FROM sealed_batches ORDER BY 1, 2, 3"
)


def sender_of(world: World, stream: StreamName) -> Side:
    return world.networks.request if stream is REQUESTS else world.networks.response


@pytest.mark.parametrize("stream", [RESULTS, REQUESTS])
async def test_what_a_sender_lost_of_its_batches_comes_back_as_it_was(world: World, stream: StreamName) -> None:
    for _ in range(5):
        await world.answered(2)
    side = sender_of(world, stream)
    before = await table(side, KEPT)
    batch = f"WHERE stream = '{stream}' AND sequence = :n"
    await change(side, f"DELETE FROM sealed_batches {batch}", n=1)
    await change(side, f"UPDATE sealed_batches SET payload = NULL {batch}", n=2)
    await change(side, f"UPDATE sealed_batches SET manifest = manifest || ' ' {batch}", n=3)
    flipped = "set_byte(payload, 12, get_byte(payload, 12) # 1)"
    await change(side, f"UPDATE sealed_batches SET payload = {flipped} {batch}", n=4)
    await change(side, f"DELETE FROM sealed_batches {batch}", n=5)
    network = stream.sender.value
    assert found(await world.verify()) == {
        (network, "sealed_batches", "missing", "1"),
        (network, "sealed_batches", "missing", "2"),
        (network, "sealed_batches", "different", "3"),
        (network, "sealed_batches", "different", "4"),
        (network, "sealed_batches", "missing", "5"),
    }
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left, outcome.set_aside) == (set(), {}, 0)
    assert await table(side, KEPT) == before
    assert await one(side, f"SELECT count(*) FROM sealed_batches {batch} AND delivered_at IS NULL", n=1) == 0


async def test_a_manifest_altered_with_its_hash_is_found_and_the_genuine_one_wins(world: World) -> None:
    for _ in range(2):
        await world.answered(2)
    side = world.networks.response
    before = await table(side, KEPT)
    await change(
        side,
        "UPDATE sealed_batches SET manifest = manifest || ' ', hash = sha256(manifest || ' ')"
        " WHERE stream = 'results' AND sequence = 1",
    )
    assert ("request", "received_batches", "different", "1") in found(await world.verify()), "the sides differ"
    reports, outcome = await world.repair()
    assert (found(reports), outcome.left) == (set(), {})
    assert await table(side, KEPT) == before


async def test_what_both_have_lost_is_left_with_the_reason(world: World) -> None:
    for _ in range(2):
        await world.answered(2)
    for side, name in ((world.networks.response, "sealed"), (world.networks.request, "received")):
        await change(side, f"UPDATE {name}_batches SET payload = NULL WHERE stream = 'results' AND sequence = 1")
    reports, outcome = await world.repair()
    assert {item[1:] for item in found(reports)} == {
        ("sealed_batches", "missing", "1"),
        ("received_batches", "missing", "1"),
    }
    assert sorted(outcome.left) == ["results 1.1 in the request network", "results 1.1 in the response network"]


async def test_results_of_a_lost_batch_are_never_taken_for_unsealed(world: World) -> None:
    """Or they would be set aside, and their requests executed once more."""
    for _ in range(2):
        await world.answered(2)
    side = world.networks.response
    for sequence in (1, 2):
        await change(side, "DELETE FROM sealed_batches WHERE stream = 'results' AND sequence = :n", n=sequence)
        orphans = await Auditor(side.engine, Network.RESPONSE, 3600).orphans(RESULTS)
        assert orphans == []


async def test_a_sender_takes_back_only_what_it_signed_and_its_chain_goes_on_from(world: World) -> None:
    for _ in range(2):
        await world.answered(2)
    side = world.networks.response
    far = RemoteSide(world.link)
    theirs = await far.stored(REQUESTS, 1, 1)
    ours = await far.stored(RESULTS, 1, 1)
    assert theirs is not None
    assert ours is not None
    mine = LocalSide(side.engine, Network.RESPONSE, RETENTION, side.keys)
    for false in (theirs, ours[:-1] + b"x", ours.replace(b'"sequence":1', b'"sequence":2'), b""):
        with pytest.raises(LinkError):
            await mine.restore(RESULTS, false)
    await change(side, "UPDATE sealed_batches SET manifest = manifest || ' ' WHERE stream = 'results' AND sequence = 2")
    with pytest.raises(LinkError):
        await mine.restore(RESULTS, ours)  # what follows it is not what was signed: restore that first
    assert hashlib.sha256(ours).digest() == hashlib.sha256(await far.stored(RESULTS, 1, 1) or b"").digest()
