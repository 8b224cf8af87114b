"""Pushed streams over HTTP: everything arrives once and in order, and only a receipt marks it delivered."""

import asyncio

import pytest

from exchange.errors import Fork, LinkUnavailable, Malformed, StreamStopped
from exchange.wire.manifest import MAX_RECORDS
from exchange.wire.messages import Heartbeat
from models.outcomes import DrainOutcome
from models.streams import StreamName
from storage.database import execute, value
from tests.link.batches import seal, sealed
from tests.link.conftest import Crossing

RESULTS = StreamName.RESULTS


def numbered(count: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(count)]


async def test_a_drain_delivers_everything_in_order_and_then_says_that_nothing_is_new(crossing: Crossing) -> None:
    bodies = numbered(2 * MAX_RECORDS + 3)
    await crossing.enqueue(RESULTS, *bodies)
    progress: list[int] = []
    outcome = await crossing.delivery.drain(RESULTS, lambda so_far: progress.append(so_far.batches))
    assert (outcome.batches, outcome.records, outcome.heartbeat) == (3, len(bodies), False)
    assert progress == [1, 2, 3]
    assert await crossing.arrived() == bodies
    sender = await crossing.sender()
    assert (sender.sequence, sender.delivered) == (3, 3)
    assert (await crossing.drain()).heartbeat
    assert (await crossing.receiver()).sequence == 3


async def test_nothing_is_delivered_before_its_receipt(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    crossing.proxy.accepts = False
    with pytest.raises(LinkUnavailable):
        await crossing.drain()
    async with crossing.networks.response.engine.connect() as connection:
        query = "SELECT sealed_at IS NOT NULL AND sent_at IS NOT NULL AND delivered_at IS NULL FROM sealed_batches"
        assert await value(connection, query) is True
    assert (await crossing.sender()).delivered == 0
    crossing.proxy.heal()
    assert (await crossing.drain()).batches == 1


async def test_a_batch_whose_answer_was_lost_is_sent_again_and_applied_once(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b'{"n":1}')
    crossing.proxy.to_client = lambda _: None
    with pytest.raises(LinkUnavailable):
        await crossing.drain()

    assert await crossing.arrived() == [b'{"n":1}']
    assert (await crossing.sender()).delivered == 0
    before = await sealed(crossing.networks.response, RESULTS, 1)
    crossing.proxy.heal()
    await crossing.enqueue(RESULTS, b'{"n":2}')
    outcome = await crossing.drain()
    assert outcome.batches == 2
    assert await crossing.arrived() == [b'{"n":1}', b'{"n":2}']
    assert (await crossing.sender()).delivered == 2
    assert await sealed(crossing.networks.response, RESULTS, 1) == before


async def test_a_sender_that_is_ahead_of_its_receiver_goes_back_to_what_is_missing(crossing: Crossing) -> None:
    for number in range(3):
        await seal(crossing.networks.response, RESULTS, b'{"n":%d}' % number)
    async with crossing.networks.response.engine.begin() as connection:
        await execute(connection, "UPDATE outgoing_streams SET delivered = 2")
        await execute(connection, "UPDATE sealed_batches SET delivered_at = now() WHERE sequence <= 2")
    outcome = await crossing.drain()
    assert outcome.batches == 3
    assert await crossing.arrived() == numbered(3)
    assert (await crossing.sender()).delivered == 3


async def test_a_gap_that_only_a_heartbeat_can_show_is_healed(crossing: Crossing) -> None:
    await seal(crossing.networks.response, RESULTS, b'{"n":0}')
    async with crossing.networks.response.engine.begin() as connection:
        await execute(connection, "UPDATE outgoing_streams SET delivered = 1")
    outcome = await crossing.drain()
    assert (outcome.batches, await crossing.arrived()) == (1, numbered(1))


async def test_a_restored_sender_is_found_out_and_both_sides_stop(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b'{"first":1}')
    await crossing.drain()
    await forget(crossing)
    await crossing.enqueue(RESULTS, b'{"other":1}')
    with pytest.raises(Fork):
        await crossing.drain()
    assert "other bytes" in str((await crossing.sender()).stopped)
    assert "other bytes" in str((await crossing.receiver()).stopped)
    with pytest.raises(StreamStopped):
        await crossing.drain()
    with pytest.raises(StreamStopped):
        await crossing.client.push(RESULTS, await sealed(crossing.networks.response, RESULTS, 1))
    assert await crossing.arrived() == [b'{"first":1}']


async def forget(crossing: Crossing) -> None:
    """What a backup of the response network's database from before its first batch would bring."""
    async with crossing.networks.response.engine.begin() as connection:
        await execute(connection, "DELETE FROM sealed_batches")
        await execute(connection, "DELETE FROM outgoing_streams")


async def test_a_restored_sender_with_nothing_new_is_found_out_by_the_receipt_for_its_heartbeat(
    crossing: Crossing,
) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    await crossing.drain()
    await forget(crossing)
    with pytest.raises(Fork):
        await crossing.drain()
    assert (await crossing.sender()).stopped


async def test_a_heartbeat_of_another_history_stops_both_sides(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    await crossing.drain()
    async with crossing.networks.response.engine.begin() as connection:
        await execute(connection, "UPDATE outgoing_streams SET hash = :hash", hash=b"x" * 32)
    with pytest.raises(Fork):
        await crossing.drain()
    assert (await crossing.sender()).stopped
    assert (await crossing.receiver()).stopped


async def test_a_stream_that_its_receiver_stopped_does_not_take_heartbeats_for_good_news(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    await crossing.drain()
    async with crossing.networks.request.engine.begin() as connection:
        await execute(
            connection, "UPDATE incoming_streams SET stopped = 'an operator said so' WHERE stream = 'results'"
        )
    with pytest.raises(StreamStopped, match="an operator said so"):
        await crossing.drain()


async def test_a_batch_that_is_wanted_again_after_its_payload_is_gone_stops_the_stream(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b"{}")
    await crossing.drain()
    async with crossing.networks.response.engine.begin() as connection:
        await execute(connection, "UPDATE sealed_batches SET payload = NULL")
    async with crossing.networks.request.engine.begin() as connection:
        await execute(connection, "DELETE FROM received_batches")
        await execute(connection, "DELETE FROM incoming_streams")
    with pytest.raises(Fork, match="past retention"):
        await crossing.drain()
    assert (await crossing.sender()).stopped


async def test_one_stopped_stream_does_not_hold_up_another(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, b'{"first":1}')
    await crossing.drain()
    await forget(crossing)
    with pytest.raises(Fork):
        await crossing.drain()
    await crossing.enqueue(StreamName.HEALTH, b'{"ok":1}')
    assert (await crossing.drain(StreamName.HEALTH)).batches == 1


async def test_two_drains_at_once_deliver_every_record_once(crossing: Crossing) -> None:
    bodies = numbered(8)
    for body in bodies:
        await seal(crossing.networks.response, RESULTS, body)
    await crossing.enqueue(RESULTS, *numbered(3))
    outcomes = await asyncio.gather(*(crossing.drain() for _ in range(3)))
    assert await crossing.arrived() == bodies + numbered(3)
    sender = await crossing.sender()
    assert sender.sequence == sender.delivered == 9
    assert all(isinstance(outcome, DrainOutcome) for outcome in outcomes)


async def test_sealing_while_a_drain_runs_leaves_nothing_behind(crossing: Crossing) -> None:
    async def produce() -> None:
        for number in range(20):
            await crossing.enqueue(RESULTS, b'{"n":%d}' % number)

    producing = asyncio.create_task(produce())
    while not producing.done():
        await crossing.drain()
    await crossing.drain()
    assert await crossing.arrived() == numbered(20)


async def test_a_heartbeat_is_a_sign_of_life(crossing: Crossing) -> None:
    assert (await crossing.receiver()).heard_at is None
    await crossing.drain()
    first = (await crossing.receiver()).heard_at
    assert first is not None
    await crossing.drain()
    later = (await crossing.receiver()).heard_at
    assert later is not None
    assert later > first
    assert (await crossing.sender()).receipt_at


async def test_a_receipt_tells_how_far_applying_is(crossing: Crossing) -> None:
    for number in range(3):
        await crossing.enqueue(RESULTS, b'{"n":%d}' % number)
        await crossing.drain()
    async with crossing.networks.request.engine.begin() as connection:
        await execute(connection, "UPDATE incoming_streams SET applied = 2, quarantined = 5 WHERE stream = 'results'")
    await crossing.drain()
    sender = await crossing.sender()
    assert (sender.delivered, sender.applied, sender.quarantined) == (3, 2, 5)
    state = await crossing.client.state(RESULTS)
    assert (state.received, state.applied, state.quarantined, state.head) == (3, 2, 5, sender.hash.hex())


async def test_a_heartbeat_for_another_stream_or_link_is_refused(crossing: Crossing) -> None:
    keys = crossing.networks.response.keys
    for link, stream in (("test", StreamName.HEALTH), ("other", RESULTS)):
        beat = Heartbeat(link=link, stream=stream, epoch=1, sequence=0, head="0" * 64, key_id=keys.key_id)
        with pytest.raises(Malformed):
            await crossing.client.heartbeat(RESULTS, beat)
    assert (await crossing.receiver()).heard_at is None
