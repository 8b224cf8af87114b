"""Pulled streams over HTTP: handed out in order, stored once, delivered by receipts only."""

import asyncio

import pytest

from exchange.errors import Fork, LinkError, LinkUnavailable, StreamStopped
from exchange.transfer.pulling import Pull
from exchange.transfer.sealing import Sealer
from models.streams import BatchRef, StreamName
from storage.database import execute, notify
from tests.api_request.serving import eventually
from tests.link.batches import seal
from tests.link.conftest import Crossing

REQUESTS = StreamName.REQUESTS


async def pull_all(pull: Pull) -> list[BatchRef]:
    found = []
    while (batch := await pull.once(REQUESTS, 0)) is not None:
        found.append(batch)
    return found


async def test_what_is_sealed_is_pulled_in_order_and_delivered_by_its_receipt(crossing: Crossing) -> None:
    bodies = [b'{"n":%d}' % number for number in range(5)]
    for body in bodies:
        await seal(crossing.networks.request, REQUESTS, body)
    pulled = await pull_all(crossing.pull)
    assert [(batch.sequence, batch.records) for batch in pulled] == [(number, 1) for number in range(1, 6)]
    assert await crossing.arrived(REQUESTS) == bodies
    assert (await crossing.sender(REQUESTS)).delivered == 5
    assert (await crossing.receiver(REQUESTS)).heard_at is not None


async def test_handing_out_is_not_delivering(crossing: Crossing) -> None:
    wire = await seal(crossing.networks.request, REQUESTS, b"{}")
    assert await crossing.client.pull(REQUESTS, 0, 0) == [wire]
    assert await crossing.client.pull(REQUESTS, 0, 0) == [wire]
    assert (await crossing.sender(REQUESTS)).delivered == 0
    async with crossing.networks.request.engine.begin() as connection:
        assert await execute(connection, "SELECT 1 FROM sealed_batches WHERE sent_at IS NOT NULL") == 1


async def test_who_waits_is_woken_when_something_is_sealed(crossing: Crossing) -> None:
    polled = asyncio.Event()

    def watch(passing: bytes) -> bytes:
        polled.set()
        return passing

    crossing.proxy.to_server = watch
    waiting = asyncio.create_task(crossing.pull.once(REQUESTS, 50))
    await polled.wait()
    assert await crossing.client.pull(REQUESTS, 0, 0) == []  # by now the server has taken in the call before this
    request = crossing.networks.request
    async with request.engine.begin() as connection:
        await Sealer(request.keys, "test").seal(connection, REQUESTS, [b"{}"])
        await notify(connection, "sealed requests")
    async with asyncio.timeout(20):
        batch = await waiting
    assert batch is not None
    assert batch.sequence == 1


async def test_a_poll_that_finds_nothing_ends_empty_and_is_a_sign_of_life(crossing: Crossing) -> None:
    assert await crossing.pull.once(REQUESTS, 0.05) is None
    assert (await crossing.receiver(REQUESTS)).heard_at is not None


async def test_a_lost_receipt_is_made_good(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")

    def lose_receipts(passing: bytes) -> bytes | None:
        return None if b"/receipts" in passing else passing

    crossing.proxy.to_server = lose_receipts
    with pytest.raises(LinkUnavailable):
        await crossing.pull.once(REQUESTS, 0)
    assert (await crossing.receiver(REQUESTS)).sequence == 1
    assert (await crossing.sender(REQUESTS)).delivered == 0
    crossing.proxy.heal()
    assert await crossing.pull.once(REQUESTS, 0) is None
    assert (await crossing.sender(REQUESTS)).delivered == 0
    await crossing.pull.confirm(REQUESTS)
    assert (await crossing.sender(REQUESTS)).delivered == 1
    assert await crossing.arrived(REQUESTS) == [b"{}"]


async def test_before_anything_came_there_is_nothing_to_confirm(crossing: Crossing) -> None:
    crossing.proxy.accepts = False
    await crossing.pull.confirm(REQUESTS)


async def test_several_pullers_at_once_store_every_batch_once_and_each_is_new_to_one(crossing: Crossing) -> None:
    bodies = [b'{"n":%d}' % number for number in range(12)]
    for body in bodies:
        await seal(crossing.networks.request, REQUESTS, body)

    async def puller() -> list[BatchRef | None]:
        return [await crossing.pull.once(REQUESTS, 0) for _ in range(20)]

    pulled = await asyncio.gather(*(puller() for _ in range(3)))
    assert sorted(batch.sequence for mine in pulled for batch in mine if batch) == list(range(1, 13))
    assert await crossing.arrived(REQUESTS) == bodies
    assert (await crossing.sender(REQUESTS)).delivered == 12


async def test_a_restored_sender_is_found_out_and_both_sides_stop(crossing: Crossing) -> None:
    for number in range(2):
        await seal(crossing.networks.request, REQUESTS, b'{"n":%d}' % number)
    await pull_all(crossing.pull)
    async with crossing.networks.request.engine.begin() as connection:
        await execute(connection, "DELETE FROM sealed_batches")
        await execute(connection, "DELETE FROM outgoing_streams")
    for number in range(3):
        await seal(crossing.networks.request, REQUESTS, b'{"other":%d}' % number)
    with pytest.raises(Fork):
        await pull_all(crossing.pull)
    assert (await crossing.receiver(REQUESTS)).stopped
    with pytest.raises(Fork):
        await crossing.pull.confirm(REQUESTS)
    assert (await crossing.sender(REQUESTS)).stopped
    assert await crossing.arrived(REQUESTS) == [b'{"n":0}', b'{"n":1}']
    with pytest.raises(StreamStopped):
        await crossing.pull.once(REQUESTS, 0)


async def test_a_sender_that_lost_its_newest_batches_is_found_out(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    await pull_all(crossing.pull)
    async with crossing.networks.request.engine.begin() as connection:
        await execute(connection, "DELETE FROM sealed_batches")
        await execute(connection, "DELETE FROM outgoing_streams")
    with pytest.raises(Fork):
        await crossing.pull.once(REQUESTS, 0)
    with pytest.raises(Fork):
        await crossing.pull.confirm(REQUESTS)
    assert (await crossing.sender(REQUESTS)).stopped


async def test_a_batch_with_a_byte_changed_under_way_is_not_stored(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b'{"text":"abcdefgh"}')
    crossing.proxy.to_client = lambda passing: passing.replace(b'"count":1', b'"count":2')
    with pytest.raises(LinkError):
        await crossing.pull.once(REQUESTS, 0)
    assert (await crossing.receiver(REQUESTS)).sequence == 0
    crossing.proxy.heal()

    async def healed() -> bool:
        return len(await pull_all(crossing.pull)) == 1

    await eventually(healed, "the batch is pulled")
