"""Several batches with one poll: each verified by itself, stored together, acknowledged by one receipt."""

import pytest

from exchange.errors import BadSignature, Fork, Gap, Malformed
from exchange.transfer.receiving import Receiver
from exchange.wire.batch import from_bundle, to_bundle
from exchange.wire.manifest import MAX_RECORDS
from models.streams import BatchRef, StreamName
from storage.database import rows
from tests.link.batches import seal
from tests.link.conftest import Crossing

REQUESTS = StreamName.REQUESTS


async def seal_some(crossing: Crossing, count: int, first: int = 0) -> list[bytes]:
    """The batches on the wire, of one record each."""
    request = crossing.networks.request
    return [await seal(request, REQUESTS, b'{"n":%d}' % number) for number in range(first, first + count)]


def receiver(crossing: Crossing) -> Receiver:
    response = crossing.networks.response
    return Receiver(response.engine, response.keys, "test")


def changed(wire: bytes) -> bytes:
    return wire[:-1] + bytes([wire[-1] ^ 1])


async def test_one_poll_brings_what_waits_and_one_receipt_speaks_for_all(crossing: Crossing) -> None:
    await seal_some(crossing, 5)
    batch = await crossing.pull.once(REQUESTS, 0, 100)
    assert batch == BatchRef(stream=REQUESTS, epoch=1, sequence=5, records=5, first=1)
    assert await crossing.arrived(REQUESTS) == [b'{"n":%d}' % number for number in range(5)]
    assert (await crossing.sender(REQUESTS)).delivered == 5
    assert await crossing.pull.once(REQUESTS, 0, 100) is None


async def test_a_bundle_is_bounded_in_batches_and_in_records(crossing: Crossing) -> None:
    await seal_some(crossing, 3)
    await seal(crossing.networks.request, REQUESTS, *[b"{}"] * MAX_RECORDS)
    await seal_some(crossing, 2)
    taken = []
    while batch := await crossing.pull.once(REQUESTS, 0, 2):
        taken.append((batch.begin, batch.sequence, batch.records))
    assert taken == [(1, 2, 2), (3, 3, 1), (4, 4, MAX_RECORDS), (5, 6, 2)]


async def test_a_single_batch_is_a_bundle_of_one(crossing: Crossing) -> None:
    first, second = await seal_some(crossing, 2)
    assert await crossing.client.pull(REQUESTS, 0, 0) == [first]
    assert await crossing.client.pull(REQUESTS, 0, 0, 9, 1, bytes(32)) == [first, second]
    with pytest.raises(Malformed):
        from_bundle(first, 9)


async def test_those_before_an_unsound_batch_are_taken_and_it_is_refused_when_it_comes_first(
    crossing: Crossing,
) -> None:
    wires = await seal_some(crossing, 3)
    taken = await receiver(crossing).accept(REQUESTS, wires[0], changed(wires[1]), wires[2])
    assert (taken.batch.begin, taken.batch.sequence, taken.receipt.received) == (1, 1, 1)
    with pytest.raises(Malformed):
        await receiver(crossing).accept(REQUESTS, changed(wires[1]), wires[2])
    assert (await crossing.receiver(REQUESTS)).stopped is None


async def test_a_gap_or_another_history_within_a_bundle_ends_it_and_stops_nothing_yet(crossing: Crossing) -> None:
    wires = await seal_some(crossing, 4)
    taken = await receiver(crossing).accept(REQUESTS, wires[0], wires[2], wires[3])
    assert taken.batch.sequence == 1
    with pytest.raises(Gap):
        await receiver(crossing).accept(REQUESTS, wires[2], wires[3])
    async with crossing.networks.request.engine.begin() as connection:  # a backup is restored: batch 2 comes anew
        await rows(connection, "DELETE FROM sealed_batches WHERE sequence > 1 RETURNING 1")
        await rows(
            connection,
            "UPDATE outgoing_streams SET sequence = 1, record = 1, hash ="
            " (SELECT hash FROM sealed_batches WHERE stream = 'requests' AND sequence = 1) WHERE stream = 'requests'"
            " RETURNING 1",
        )
    other, its_next = await seal_some(crossing, 2, first=7)
    taken = await receiver(crossing).accept(REQUESTS, wires[1], its_next)  # the next number, after another batch
    assert (taken.batch.sequence, (await crossing.receiver(REQUESTS)).stopped) == (2, None)
    with pytest.raises(Fork):
        await receiver(crossing).accept(REQUESTS, other)
    assert (await crossing.receiver(REQUESTS)).stopped


async def test_what_is_repeated_in_a_bundle_is_stored_once(crossing: Crossing) -> None:
    wires = await seal_some(crossing, 4)
    await receiver(crossing).accept(REQUESTS, *wires[:2])
    again = await receiver(crossing).accept(REQUESTS, *wires)
    assert (again.repeated, again.batch.begin, again.batch.sequence, again.batch.records) == (False, 3, 4, 2)
    assert (await receiver(crossing).accept(REQUESTS, *wires)).repeated
    assert await crossing.arrived(REQUESTS) == [b'{"n":%d}' % number for number in range(4)]


async def test_a_stranger_in_front_stops_nothing(crossing: Crossing) -> None:
    wires = await seal_some(crossing, 1)
    manifest, _, payload = wires[0].split(b"\n", 2)
    forged = b"\n".join((manifest, b"A" * 86 + b"==", payload))
    with pytest.raises(BadSignature):
        await receiver(crossing).accept(REQUESTS, forged, wires[0])


@pytest.mark.parametrize(
    "content", [b"5\nabc", b"x\nabc", b"3abc", b"-1\n", b"0\n", b"03\nabc", b"3\nabc7", b"99999999999\n", b"\n"]
)
def test_what_is_no_bundle_is_malformed(content: bytes) -> None:
    with pytest.raises(Malformed):
        from_bundle(content, 9)


def test_a_bundle_gives_back_what_was_put_into_it() -> None:
    wires = [b"{a}", b"\n\n", b"1\n2"]
    assert from_bundle(to_bundle(wires), 3) == wires
    assert from_bundle(b"", 1) == []
