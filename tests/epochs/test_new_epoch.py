"""A stream that was stopped goes on by an operator's new epoch: nothing lost, nothing applied twice."""

import hashlib
from uuid import UUID

import orjson
import pytest

from exchange.audit.auditor import Auditor
from exchange.errors import Fork, LinkError, Malformed, StreamStopped, UnknownKey
from exchange.recovery.epoch_ordering import EpochOrdering
from exchange.recovery.epochs import SendingEnd
from exchange.recovery.local_side import LocalSide
from exchange.recovery.remote_side import RemoteSide
from exchange.transfer.epoch_store import boundaries
from exchange.transfer.incoming import incoming_stream
from exchange.transfer.outgoing import StoredBatch, batch_after, outgoing_stream, stop_outgoing
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import pack, to_wire
from exchange.wire.manifest import Manifest, sign_manifest
from exchange.wire.messages import EpochOrder
from models.errors import Conflict
from models.outcomes import EpochOutcome
from models.streams import Network, StreamName
from storage.database import execute, rows, value
from tests.activities.crossing import LINK
from tests.conftest import Side
from tests.epochs.backups import back_up, restore
from tests.system.running import eventually
from tests.verification.world import RETENTION, World

REQUESTS, RESULTS, SETTINGS = StreamName.REQUESTS, StreamName.RESULTS, StreamName.SETTINGS


def ordering(world: World) -> EpochOrdering:
    side = world.networks.response
    local = Auditor(side.engine, Network.RESPONSE, RETENTION)
    return EpochOrdering(local, RemoteSide(world.link), Sealer(side.keys, LINK))


async def new_epoch(world: World, stream: StreamName, accept_loss: bool = False) -> EpochOutcome:
    return await ordering(world).order(stream, "restored from a backup", "tests", accept_loss)


async def bodies(side: Side) -> dict[UUID, bytes]:
    async with side.engine.connect() as connection:
        return {item[0]: item[1] for item in await rows(connection, "SELECT request_id, body FROM results")}


async def quarantined(side: Side) -> list[tuple[str, str]]:
    async with side.engine.connect() as connection:
        return [
            tuple(item)
            for item in await rows(
                connection, "SELECT stream, reason FROM quarantined_records WHERE applied_at IS NULL"
            )
        ]


async def all_is_well(world: World, ids: list[UUID]) -> None:
    """Every request has one result, the same on both sides; nothing was set aside; nothing waits."""
    there, here = await bodies(world.networks.request), await bodies(world.networks.response)
    assert set(there) == set(ids), "a request has no result in the request network, or one too many"
    assert there == here, "the two networks have different results"
    assert await quarantined(world.networks.request) == []
    assert await quarantined(world.networks.response) == []
    async with world.networks.response.engine.begin() as connection:
        head = await outgoing_stream(connection, RESULTS)
        assert head.delivered == head.sequence
        assert head.stopped is None


async def forked_by(world: World, stream: StreamName) -> None:
    """Deliver until the fork is seen; the stream must be stopped then."""
    with pytest.raises(Fork):
        await world.delivery.drain(stream, lambda _: None)
    with pytest.raises(StreamStopped):
        await world.delivery.drain(stream, lambda _: None)


@pytest.mark.parametrize("sealed", [True, False])
async def test_the_response_network_restored_from_a_backup_gets_its_results_back(world: World, sealed: bool) -> None:
    before = await world.answered(3)
    await back_up(world.networks.response.engine)
    since = await world.answered(4)
    shown = await bodies(world.networks.request)
    await restore(world.networks.response.engine)
    assert set(await bodies(world.networks.response)) == set(before)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)  # they are pulled once more and executed anew: other results than were shown
    later = await world.submitted(2)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    if sealed:  # otherwise the other results wait in the outbox
        await forked_by(world, RESULTS)

    outcome = await new_epoch(world, RESULTS)

    assert (outcome.epoch, outcome.previous_epoch, outcome.previous_sequence) == (2, 1, 1)
    assert outcome.taken_back == 4
    await world.carry_on()
    await all_is_well(world, before + since + later)
    here = await bodies(world.networks.response)
    assert {item: here[item] for item in shown} == shown, "what its owner was shown has changed"


@pytest.mark.parametrize("results_first", [True, False])
async def test_the_request_network_restored_from_a_backup_gets_everything_back(
    world: World, results_first: bool
) -> None:
    before = await world.answered(3)
    await back_up(world.networks.request.engine)
    since = await world.answered(4)
    await restore(world.networks.request.engine)
    later = await world.submitted(2)  # sealed as the number that the response network has another batch of
    if results_first:  # they come again, for requests that are not known here any more
        await world.delivery.drain(RESULTS, lambda _: None)
        await world.apply(RESULTS)
        assert len(await quarantined(world.networks.request)) == 4
    with pytest.raises(Fork):
        await world.pull.once(REQUESTS, 0)

    outcome = await new_epoch(world, REQUESTS)

    assert outcome.given_back == 4
    await world.carry_on()  # the results stream heals by itself: its sender goes back to what is missing

    async def none_set_aside() -> bool:
        return not await quarantined(world.networks.request)

    await eventually(none_set_aside, "results that were set aside are applied")
    async with world.networks.request.engine.connect() as connection:
        ids = [item[0] for item in await rows(connection, "SELECT request_id FROM requests")]
    assert set(before + since + later) <= set(ids)
    await all_is_well(world, ids)


async def test_a_restored_receiver_of_results_heals_without_an_operator(world: World) -> None:
    before = await world.answered(2)
    async with world.networks.request.engine.begin() as connection:
        saved = await incoming_stream(connection, RESULTS)
    since = await world.answered(2)
    async with world.networks.request.engine.begin() as connection:
        await execute(connection, "DELETE FROM received_batches WHERE stream = 'results' AND sequence > 1")
        await execute(connection, "DELETE FROM results WHERE sequence > 1")
        await execute(
            connection,
            "UPDATE incoming_streams SET sequence = :sequence, record = :record, hash = :hash, applied = :sequence"
            " WHERE stream = 'results'",
            sequence=saved.sequence,
            record=saved.record,
            hash=saved.hash,
        )
    await world.carry_on()
    await all_is_well(world, before + since)


async def test_what_was_sealed_and_not_received_is_sealed_again(world: World) -> None:
    done = await world.answered(2)
    waiting = await world.submitted(3)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    async with world.networks.response.engine.begin() as connection:
        sealed = await world.delivery.sealer.seal_pending(connection, RESULTS)
        await stop_outgoing(connection, RESULTS, "two histories")
    assert sealed is not None

    outcome = await new_epoch(world, RESULTS)

    assert (outcome.resealed_batches, outcome.resealed, outcome.taken_back, outcome.lost) == (1, 3, 0, 0)
    await world.carry_on()
    await all_is_well(world, done + waiting)


async def test_both_sides_keep_who_ordered_the_epoch_and_why(world: World) -> None:
    await world.answered(1)
    await new_epoch(world, RESULTS)
    for side in (world.networks.request, world.networks.response):
        async with side.engine.connect() as connection:
            (epoch,) = await boundaries(connection, RESULTS)
        assert (epoch.epoch, epoch.previous_epoch, epoch.previous_sequence) == (2, 1, 1)
        assert (epoch.reason, epoch.ordered_by) == ("restored from a backup", "tests")


async def test_a_snapshot_stream_goes_on_with_the_present_snapshot(world: World) -> None:
    await world.publish(b'{"kind":"setting","name":"a","value":1}')
    async with world.networks.response.engine.begin() as connection:
        await stop_outgoing(connection, SETTINGS, "two histories")
    await new_epoch(world, SETTINGS)
    async with world.networks.response.engine.begin() as connection:
        refs = await world.delivery.sealer.seal_snapshot(
            connection, SETTINGS, [b'{"kind":"setting","name":"a","value":1}']
        )
    assert [(ref.epoch, ref.sequence) for ref in refs] == [(2, 1)], "the same content is sealed once more"
    await world.carry_on()
    async with world.networks.request.engine.connect() as connection:
        assert await value(connection, "SELECT epoch FROM snapshots WHERE stream = 'settings'") == 2


async def test_records_past_retention_are_given_up_only_by_an_operator_who_says_so(world: World) -> None:
    await world.submitted(3)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    async with world.networks.response.engine.begin() as connection:
        await world.delivery.sealer.seal_pending(connection, RESULTS)
        await execute(connection, "UPDATE sealed_batches SET payload = NULL WHERE stream = 'results'")
    with pytest.raises(Conflict, match=r"3 records in 1 batch of results"):
        await new_epoch(world, RESULTS)
    async with world.networks.request.engine.begin() as connection:
        assert (await incoming_stream(connection, RESULTS)).epoch == 1, "one side began while the other could not"
    outcome = await new_epoch(world, RESULTS, accept_loss=True)
    assert outcome.lost == 3


async def test_a_new_epoch_that_was_interrupted_is_ordered_again(world: World) -> None:
    done = await world.answered(2)
    waiting = await world.submitted(2)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    async with world.networks.response.engine.begin() as connection:
        await world.delivery.sealer.seal_pending(connection, RESULTS)
    head = await ordering(world).local.head(RESULTS)
    async with world.networks.response.engine.begin() as connection:
        first = await value(connection, "SELECT hash FROM sealed_batches WHERE stream = 'results' AND sequence = 1")
    await world.link.order_epoch(  # the request network begins; then, it is supposed, the command is killed
        RESULTS,
        EpochOrder(
            link=LINK,
            stream=RESULTS,
            epoch=head.epoch + 1,
            head=first.hex(),
            key_id=world.networks.response.keys.key_id,
            previous_epoch=1,
            previous_sequence=1,
            reason="never finished",
            ordered_by="tests",
        ),
    )
    with pytest.raises(Fork):
        await world.delivery.drain(RESULTS, lambda _: None)
    outcome = await new_epoch(world, RESULTS)
    assert outcome.epoch == 3
    await world.carry_on()
    await all_is_well(world, done + waiting)


async def test_an_order_that_names_another_history_is_refused_and_changes_nothing(world: World) -> None:
    await world.answered(1)
    good = EpochOrder(
        link=LINK,
        stream=RESULTS,
        epoch=2,
        head="ab" * 32,
        key_id=world.networks.response.keys.key_id,
        previous_epoch=1,
        previous_sequence=1,
        reason="wrong place",
        ordered_by="tests",
    )
    for order in (good, good.model_copy(update={"epoch": 1}), good.model_copy(update={"stream": REQUESTS})):
        with pytest.raises(LinkError):
            await world.link.order_epoch(order.stream, order)
    for side, read in ((world.networks.request, incoming_stream), (world.networks.request, outgoing_stream)):
        async with side.engine.begin() as connection:
            found = await read(connection, RESULTS if read is incoming_stream else REQUESTS)
        assert (found.epoch, found.stopped) == (1, None)


async def test_only_bytes_that_the_request_network_signed_are_given_back_to_it(world: World) -> None:
    await world.answered(1)
    theirs = await RemoteSide(world.link).stored(REQUESTS, 1, 1)
    assert theirs is not None
    for false in (b"no batch", await near_wire(world, 1, 1), theirs[:-1] + b"x"):
        with pytest.raises(LinkError):
            await world.link.give_back(REQUESTS, false)
    with pytest.raises(LinkError):
        await world.link.give_back(RESULTS, theirs)
    async with world.networks.request.engine.connect() as connection:
        assert await value(connection, "SELECT count(*) FROM outbox") == 0


async def test_results_that_the_request_network_signed_itself_are_not_adopted(world: World) -> None:
    """A captured request network could otherwise plant results while an operator begins a new epoch."""
    (request_id,) = await world.answered(1)
    before = await bodies(world.networks.response)
    there = world.networks.request
    false = orjson.dumps({"request_id": str(request_id), "status": "completed", "data": ["planted"], "returned": 1})
    manifest = Manifest.model_validate_json((await near_batch(world)).manifest)
    size, payload = pack([false])
    sealed = manifest.model_copy(
        update={
            "raw_bytes": size,
            "payload_bytes": len(payload),
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
            "key_id": there.keys.key_id,
        }
    )
    content, signature = sign_manifest(there.keys, sealed)
    end = SendingEnd(world.networks.response.engine, Sealer(world.networks.response.keys, LINK))
    with pytest.raises(UnknownKey):
        await end.adopt(RESULTS, (1, 1), to_wire(content, signature, payload))
    ours = await near_wire(world, 1, 1)
    with pytest.raises(Malformed, match=r"not 1\.2 of results"):
        await end.adopt(RESULTS, (1, 2), ours)
    assert await bodies(world.networks.response) == before


async def near_batch(world: World) -> StoredBatch:
    async with world.networks.response.engine.connect() as connection:
        batch = await batch_after(connection, RESULTS, 1, 0)
    assert batch is not None
    return batch


async def test_a_late_copy_of_an_ended_epochs_batch_is_acknowledged_and_another_refused(world: World) -> None:
    await world.answered(1)
    far = RemoteSide(world.link)
    wire = await far.stored(RESULTS, 1, 1)
    assert wire is not None
    async with world.networks.response.engine.begin() as connection:
        await execute(
            connection,
            "INSERT INTO outbox (stream, body) VALUES ('results', :body)",
            body=orjson.dumps({"request_id": "0198c0de-0000-7000-8000-0000000000ab", "status": "completed"}),
        )
        await world.delivery.sealer.seal_pending(connection, RESULTS)
        unsent = await value(connection, "SELECT count(*) FROM sealed_batches WHERE stream = 'results'")
    assert unsent == 2
    void = await near_wire(world, 1, 2)
    await new_epoch(world, RESULTS)
    receipt = await world.link.push(RESULTS, wire)
    assert (receipt.epoch, receipt.received) == (2, 0)
    with pytest.raises(Fork):
        await world.link.push(RESULTS, void)
    async with world.networks.request.engine.begin() as connection:
        assert (await incoming_stream(connection, RESULTS)).stopped is None, "an old copy stopped the new epoch"


async def near_wire(world: World, epoch: int, sequence: int) -> bytes:
    """The bytes of a batch sealed in the response network."""
    side = world.networks.response
    near = LocalSide(side.engine, Network.RESPONSE, RETENTION, side.keys)
    wire = await near.stored(RESULTS, epoch, sequence)
    assert wire is not None
    return wire


async def test_a_receiver_restored_to_before_the_epoch_stops_the_stream(world: World) -> None:
    await world.answered(1)
    await back_up(world.networks.request.engine)
    await new_epoch(world, RESULTS)
    await restore(world.networks.request.engine)
    await world.submitted(1)
    while batch := await world.pull.once(REQUESTS, 0):
        await world.execute(batch)
    with pytest.raises(Fork, match="epoch"):
        await world.delivery.drain(RESULTS, lambda _: None)
    outcome = await new_epoch(world, RESULTS)
    assert outcome.epoch == 3


async def test_a_poll_that_counts_in_another_epoch_stops_the_receiver(world: World) -> None:
    await world.answered(1)
    await back_up(world.networks.response.engine)
    await new_epoch(world, REQUESTS)
    await restore(world.networks.response.engine)
    with pytest.raises(Fork, match="epoch"):
        await world.pull.once(REQUESTS, 0)
    async with world.networks.response.engine.begin() as connection:
        assert (await incoming_stream(connection, REQUESTS)).stopped is not None
    await new_epoch(world, REQUESTS)
    more = await world.submitted(1)
    await world.carry_on()
    assert set(more) <= set(await bodies(world.networks.request))


async def test_the_longest_order_crosses_as_it_was_signed(world: World) -> None:
    keys = world.networks.response.keys
    order = EpochOrder(
        link=LINK,
        stream=RESULTS,
        epoch=2,
        head="0" * 64,
        key_id=keys.key_id,
        previous_epoch=1,
        previous_sequence=0,
        reason="Ü" * 400,
        ordered_by="x" * 100,
    )
    assert EpochOrder.from_wire(world.networks.request.keys, order.to_wire(keys)) == order
