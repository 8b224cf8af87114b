"""A batch on its way: sealed, offered, accepted, acknowledged; and every way in which that must be refused."""

import asyncio
import hashlib
from datetime import UTC, datetime

import pytest

from exchange.errors import BadSignature, Fork, Gap, Malformed, Oversize, StreamStopped
from exchange.transfer.delivery import accept_receipt
from exchange.transfer.incoming import incoming_stream
from exchange.transfer.outgoing import append_to_outbox, batch_after, outgoing_stream, take_from_outbox
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import pack, to_wire, unpack
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import Manifest, sign_manifest
from models.streams import StreamName
from storage.database import rows, value
from tests.conftest import Networks, Side

RESULTS = StreamName.RESULTS


async def seal(side: Side, *bodies: bytes) -> bytes:
    """Seal these records in one batch; gives its bytes on the wire."""
    sealer = Sealer(side.keys, "test")
    async with side.engine.begin() as connection:
        batch = await sealer.seal(connection, RESULTS, list(bodies))
        stored = await batch_after(connection, RESULTS, batch.epoch, batch.sequence - 1)
    assert stored is not None
    assert stored.payload is not None
    return to_wire(stored.manifest, stored.signature, stored.payload)


def receiver(networks: Networks) -> Receiver:
    return Receiver(networks.request.engine, networks.request.keys, "test")


async def test_an_accepted_batch_is_stored_and_moves_the_cursor_and_the_receipt_says_so(networks: Networks) -> None:
    wire = await seal(networks.response, b'{"a":1}', b'{"a":2}')
    acceptance = await receiver(networks).accept(RESULTS, wire)
    assert (acceptance.repeated, acceptance.batch.sequence, acceptance.batch.records) == (False, 1, 2)
    async with networks.request.engine.begin() as connection:
        assert (await incoming_stream(connection, RESULTS)).record == 2
    async with networks.response.engine.begin() as connection:
        await accept_receipt(connection, RESULTS, acceptance.receipt)
        assert (await outgoing_stream(connection, RESULTS)).delivered == 1


async def test_a_repeated_batch_is_acknowledged_and_changes_nothing(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    first = await receiver(networks).accept(RESULTS, wire)
    second = await receiver(networks).accept(RESULTS, wire)
    assert second.repeated
    assert (second.receipt.received, second.receipt.head) == (first.receipt.received, first.receipt.head)
    async with networks.request.engine.connect() as connection:
        assert await value(connection, "SELECT count(*) FROM received_batches") == 1


async def nothing_was_applied(networks: Networks, sequence: int = 0) -> bool:
    async with networks.request.engine.begin() as connection:
        cursor = await incoming_stream(connection, RESULTS)
        stored = await rows(connection, "SELECT sequence FROM received_batches")
    return (cursor.sequence, len(stored)) == (sequence, sequence)


@pytest.mark.parametrize("where", ["manifest", "signature", "payload", "last byte"])
async def test_a_batch_with_one_byte_changed_is_refused_and_nothing_is_stored(networks: Networks, where: str) -> None:
    wire = bytearray(await seal(networks.response, b'{"a":1}' * 20))
    first = wire.index(b"\n")
    second = wire.index(b"\n", first + 1)
    place = {"manifest": first // 2, "signature": first + 5, "payload": second + 9, "last byte": len(wire) - 1}[where]
    wire[place] = ord("A") if wire[place] != ord("A") else ord("B")
    with pytest.raises((BadSignature, Malformed)):
        await receiver(networks).accept(RESULTS, bytes(wire))
    assert await nothing_was_applied(networks)


async def test_a_batch_signed_by_the_wrong_network_is_refused(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    wrong = LinkKeys(networks.request.keys.signing, networks.request.keys.key_id, networks.request.keys.trusted)
    manifest, _, rest = wire.partition(b"\n")
    payload = rest.partition(b"\n")[2]
    with pytest.raises(BadSignature):
        await receiver(networks).accept(RESULTS, to_wire(manifest, wrong.sign("manifest", manifest), payload))
    assert await nothing_was_applied(networks)


async def test_a_signature_for_another_purpose_does_not_serve_for_a_manifest(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    manifest, _, rest = wire.partition(b"\n")
    payload = rest.partition(b"\n")[2]
    other = networks.response.keys.sign("receipt", manifest)
    with pytest.raises(BadSignature):
        await receiver(networks).accept(RESULTS, to_wire(manifest, other, payload))


async def test_a_missing_batch_in_between_is_a_gap_that_names_the_expected_one(networks: Networks) -> None:
    first, second, third = [await seal(networks.response, b'{"n":%d}' % number) for number in range(3)]
    await receiver(networks).accept(RESULTS, first)
    with pytest.raises(Gap) as refused:
        await receiver(networks).accept(RESULTS, third)
    assert refused.value.extra["expected"] == 2
    assert await nothing_was_applied(networks, 1)
    await receiver(networks).accept(RESULTS, second)
    assert (await receiver(networks).accept(RESULTS, third)).receipt.received == 3


async def test_the_same_number_with_other_bytes_stops_the_stream(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    await receiver(networks).accept(RESULTS, wire)
    async with networks.response.engine.begin() as connection:
        stored = await batch_after(connection, RESULTS, 1, 0)
    assert stored is not None
    other = forked_batch(networks.response, stored.manifest)
    with pytest.raises(Fork):
        await receiver(networks).accept(RESULTS, other)
    with pytest.raises(StreamStopped):
        await receiver(networks).accept(RESULTS, wire)


def forked_batch(side: Side, manifest_bytes: bytes) -> bytes:
    """The same batch number, validly signed, with another payload: what a forked or restored sender would send."""
    payload_raw, payload = pack([b'{"forked":true}'])
    manifest = Manifest.model_validate_json(manifest_bytes)
    forked = manifest.model_copy(
        update={
            "raw_bytes": payload_raw,
            "payload_bytes": len(payload),
            "payload_sha256": hashlib.sha256(payload).hexdigest(),
        }
    )
    content, signature = sign_manifest(side.keys, forked)
    return to_wire(content, signature, payload)


async def test_a_batch_of_another_link_or_stream_is_refused(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    with pytest.raises(Malformed):
        await Receiver(networks.request.engine, networks.request.keys, "other").accept(RESULTS, wire)
    with pytest.raises(Malformed):
        await receiver(networks).accept(StreamName.HEALTH, wire)


async def test_concurrent_deliveries_of_the_same_batch_store_it_once(networks: Networks) -> None:
    wire = await seal(networks.response, b"{}")
    accepted = await asyncio.gather(*(receiver(networks).accept(RESULTS, wire) for _ in range(8)))
    assert sorted(acceptance.repeated for acceptance in accepted) == [False] + [True] * 7


async def test_concurrent_sealers_number_every_batch_and_record_once(networks: Networks) -> None:
    sealer = Sealer(networks.response.keys, "test")

    async def one(number: int) -> None:
        async with networks.response.engine.begin() as connection:
            await sealer.seal(connection, RESULTS, [b'{"n":%d}' % number] * 3)

    await asyncio.gather(*(one(number) for number in range(8)))
    async with networks.response.engine.connect() as connection:
        sealed = await rows(connection, "SELECT sequence, first_record, records FROM sealed_batches ORDER BY sequence")
    assert [tuple(item) for item in sealed] == [(number, number * 3 - 2, 3) for number in range(1, 9)]


async def test_a_sealing_that_is_rolled_back_leaves_no_trace(networks: Networks) -> None:
    sealer = Sealer(networks.response.keys, "test")
    async with networks.response.engine.connect() as connection:
        await sealer.seal(connection, RESULTS, [b"{}"])
        await connection.rollback()
    async with networks.response.engine.begin() as connection:
        assert (await outgoing_stream(connection, RESULTS)).sequence == 0


async def test_pending_records_are_sealed_in_order_within_the_bounds_of_a_batch(networks: Networks) -> None:
    sealer = Sealer(networks.response.keys, "test")
    bodies = [b'{"n":%d}' % number for number in range(5003)]
    async with networks.response.engine.begin() as connection:
        await sealer.enqueue(connection, RESULTS, bodies)
    async with networks.response.engine.begin() as connection:
        first = await sealer.seal_pending(connection, RESULTS)
        second = await sealer.seal_pending(connection, RESULTS)
        assert await sealer.seal_pending(connection, RESULTS) is None
        stored = await batch_after(connection, RESULTS, 1, 0)
    assert (first and first.records, second and second.records) == (5000, 3)
    assert stored is not None
    assert stored.payload is not None
    assert unpack(Manifest.model_validate_json(stored.manifest), stored.payload) == bodies[:5000]


async def test_large_records_split_by_bytes_and_one_that_fits_no_batch_is_refused(networks: Networks) -> None:
    sealer = Sealer(networks.response.keys, "test")
    big = b'"' + b"x" * (3 * 1024 * 1024) + b'"'
    async with networks.response.engine.begin() as connection:
        await sealer.enqueue(connection, RESULTS, [big, big, big])
    async with networks.response.engine.begin() as connection:
        first = await sealer.seal_pending(connection, RESULTS)
        second = await sealer.seal_pending(connection, RESULTS)
    assert (first and first.records, second and second.records) == (2, 1)
    with pytest.raises(Oversize):
        async with networks.response.engine.begin() as connection:
            await sealer.enqueue(connection, RESULTS, [b"x" * (8 * 1024 * 1024)])


async def test_whoever_empties_the_outbox_goes_on_where_it_was_and_finds_what_came_late_at_the_end(
    networks: Networks,
) -> None:
    bodies = [b'{"n":%d}' % number for number in range(3)]
    async with networks.response.engine.begin() as connection:
        await append_to_outbox(connection, RESULTS, bodies)
        first = await take_from_outbox(connection, RESULTS, 1, 1000)
        second = await take_from_outbox(connection, RESULTS, 1, 1000, first.last + 1)
        rest = await take_from_outbox(connection, RESULTS, 1, 1000, second.last)
        none = await take_from_outbox(connection, RESULTS, 1, 1000, second.last)
    assert (first.records, second.records, rest.records) == (bodies[:1], bodies[2:], bodies[1:2])
    assert (none.records, none.last) == ([], 0)


async def test_an_unchanged_snapshot_is_not_sealed_again(networks: Networks) -> None:
    sealer = Sealer(networks.response.keys, "test")
    async with networks.response.engine.begin() as connection:
        assert len(await sealer.seal_snapshot(connection, StreamName.SETTINGS, [b'{"a":1}'])) == 1
        assert await sealer.seal_snapshot(connection, StreamName.SETTINGS, [b'{"a":1}']) == []
        assert len(await sealer.seal_snapshot(connection, StreamName.SETTINGS, [])) == 1


def test_a_payload_that_inflates_beyond_its_manifest_is_cut_off() -> None:
    raw_bytes, payload = pack([b"0" * (7 * 1024 * 1024)])
    lying = Manifest(
        link="test",
        stream=RESULTS,
        epoch=1,
        sequence=1,
        first_record=1,
        last_record=1,
        count=1,
        raw_bytes=100,
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
        previous="0" * 64,
        key_id="0" * 16,
        sealed_at=datetime.now(UTC),
    )
    with pytest.raises(Malformed, match="101 bytes or more"):
        unpack(lying, payload)
    assert raw_bytes > lying.raw_bytes


async def test_a_receipt_of_another_history_is_a_fork(networks: Networks) -> None:
    acceptance = await receiver(networks).accept(RESULTS, await seal(networks.response, b"{}"))
    false = acceptance.receipt.model_copy(update={"head": "f" * 64})
    with pytest.raises(Fork):
        async with networks.response.engine.begin() as connection:
            await accept_receipt(connection, RESULTS, false)
    async with networks.response.engine.begin() as connection:
        assert (await outgoing_stream(connection, RESULTS)).delivered == 0
