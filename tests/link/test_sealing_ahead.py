"""While one batch is on its way the next is sealed. Whatever happens then, nothing is lost, doubled or out of order."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.carriers.http import LinkClient
from exchange.errors import Fork, Gap, LinkUnavailable, Oversize
from exchange.transfer import sealing
from exchange.transfer.delivery import Delivery
from exchange.transfer.sealing import OutboxCursor, Sealer
from exchange.wire.messages import Heartbeat, Receipt
from models.outcomes import DrainOutcome
from models.streams import BatchRef, StreamName
from storage.database import execute, value
from tests.link.batches import sealed
from tests.link.conftest import Crossing

RESULTS = StreamName.RESULTS
SIZE = 2
"""Records in a batch here."""
Answer = Callable[[bytes], Awaitable[Receipt]]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "MAX_RECORDS", SIZE)


@dataclass
class Link:
    """The real link, but what happens to the push of each batch, counted from 1, may be decided here."""

    client: LinkClient
    happens: dict[int, Callable[[Answer, bytes], Awaitable[Receipt]]] = field(default_factory=dict)
    pushed: int = 0

    async def push(self, stream: StreamName, wire: bytes) -> Receipt:
        self.pushed += 1

        async def really(content: bytes) -> Receipt:
            return await self.client.push(stream, content)

        happens = self.happens.get(self.pushed)
        return await happens(really, wire) if happens else await really(wire)

    async def heartbeat(self, stream: StreamName, heartbeat: Heartbeat) -> Receipt:
        return await self.client.heartbeat(stream, heartbeat)


def over(crossing: Crossing, link: Link, sealer: Sealer | None = None) -> Delivery:
    response = crossing.networks.response
    return Delivery(response.engine, sealer or Sealer(response.keys, "test"), link)  # type: ignore[arg-type]


async def drain(delivery: Delivery) -> DrainOutcome:
    return await delivery.drain(RESULTS, lambda _: None)


def numbered(batches: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(batches * SIZE)]


async def of_sender(crossing: Crossing, query: str) -> int:
    async with crossing.networks.response.engine.connect() as connection:
        return int(await value(connection, query))


async def until_sealed(crossing: Crossing, count: int) -> None:
    async with asyncio.timeout(10):
        while await of_sender(crossing, "SELECT count(*) FROM sealed_batches") < count:
            pass


def fails(crossing: Crossing, sealed_first: int, error: Exception) -> Callable[[Answer, bytes], Awaitable[Receipt]]:
    """The push fails like this once so many batches are sealed."""

    async def happens(_: Answer, __: bytes) -> Receipt:
        await until_sealed(crossing, sealed_first)
        raise error

    return happens


async def test_while_a_batch_is_on_its_way_one_more_is_sealed_and_not_marked_as_sent(crossing: Crossing) -> None:
    bodies = numbered(5)
    await crossing.enqueue(RESULTS, *bodies)
    seen: list[tuple[int, int]] = []

    async def slow(really: Answer, wire: bytes) -> Receipt:
        await until_sealed(crossing, link.pushed + 1)
        receipt = await really(wire)
        counts = "SELECT count(*) * 100 + count(sent_at) FROM sealed_batches"
        seen.append(divmod(await of_sender(crossing, counts), 100))
        return receipt

    link = Link(crossing.client, {2: slow, 3: slow, 4: slow})
    assert (await drain(over(crossing, link))).batches == 5
    assert seen == [(3, 2), (4, 3), (5, 4)]
    assert await crossing.arrived() == bodies
    assert await of_sender(crossing, "SELECT count(*) FROM sealed_batches WHERE sent_at IS NULL") == 0


async def test_nothing_is_sealed_ahead_before_the_link_has_taken_a_batch(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    seen: list[list[int]] = []
    original = Delivery._next

    def noted(self: Delivery, stream: StreamName, position: int | None, *more: Any, **named: Any) -> Any:
        if position is not None:  # None asks for no batch
            wanted.append(position)
        return original(self, stream, position, *more, **named)

    async def looks(really: Answer, wire: bytes) -> Receipt:
        await asyncio.sleep(0)  # what runs concurrently has taken its first step
        seen.append(list(wanted))
        return await really(wire)

    monkeypatch.setattr(Delivery, "_next", noted)
    await crossing.enqueue(RESULTS, *numbered(3))
    assert (await drain(over(crossing, Link(crossing.client, {1: looks, 2: looks})))).batches == 3
    assert seen == [[0], [0, 1, 2]]


@pytest.mark.parametrize("error", [LinkUnavailable("the answer was lost"), Oversize("too large for a proxy")])
async def test_what_was_sealed_ahead_of_a_failure_goes_later_in_order_with_the_same_bytes(
    crossing: Crossing, error: Exception
) -> None:
    bodies = numbered(4)
    await crossing.enqueue(RESULTS, *bodies)
    with pytest.raises(type(error)):
        await drain(over(crossing, Link(crossing.client, {2: fails(crossing, 3, error)})))
    third = await sealed(crossing.networks.response, RESULTS, 3)
    assert (await crossing.sender()).delivered == 1
    assert (await drain(over(crossing, Link(crossing.client)))).batches == 3
    assert await sealed(crossing.networks.response, RESULTS, 3) == third
    assert await crossing.arrived() == bodies


async def test_a_lost_receipt_while_one_is_ahead_repeats_the_batch_and_doubles_nothing(crossing: Crossing) -> None:
    async def loses(really: Answer, wire: bytes) -> Receipt:
        await until_sealed(crossing, 3)
        await really(wire)
        raise LinkUnavailable("the answer was lost")

    bodies = numbered(4)
    await crossing.enqueue(RESULTS, *bodies)
    with pytest.raises(LinkUnavailable):
        await drain(over(crossing, Link(crossing.client, {2: loses})))
    assert await crossing.arrived() == bodies[: 2 * SIZE]
    assert (await drain(over(crossing, Link(crossing.client)))).batches == 3
    assert await crossing.arrived() == bodies


async def test_a_run_that_is_killed_with_one_ahead_leaves_it_to_the_next(crossing: Crossing) -> None:
    held = asyncio.Event()

    async def hangs(_: Answer, __: bytes) -> Receipt:
        await until_sealed(crossing, 3)
        held.set()
        await asyncio.Event().wait()
        raise AssertionError("nothing wakes it")

    bodies = numbered(4)
    await crossing.enqueue(RESULTS, *bodies)
    running = asyncio.create_task(drain(over(crossing, Link(crossing.client, {2: hangs}))))
    await asyncio.wait_for(held.wait(), 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await drain(over(crossing, Link(crossing.client)))).batches == 3
    assert await crossing.arrived() == bodies


async def test_a_gap_while_one_is_ahead_is_healed_in_order(crossing: Crossing) -> None:
    async def forgets(really: Answer, wire: bytes) -> Receipt:
        """The receiver comes back from a backup of before its first batch."""
        await until_sealed(crossing, 4)
        async with crossing.networks.request.engine.begin() as connection:
            await execute(connection, "DELETE FROM received_batches")
            await execute(connection, "DELETE FROM incoming_streams")
        with pytest.raises(Gap):
            await really(wire)
        return await really(wire)

    bodies = numbered(5)
    await crossing.enqueue(RESULTS, *bodies)
    link = Link(crossing.client, {3: forgets})
    assert (await drain(over(crossing, link))).batches == 2 + 5
    assert link.pushed == 3 + 5
    assert await crossing.arrived() == bodies
    sender = await crossing.sender()
    assert sender.sequence == sender.delivered == 5


async def test_a_fork_while_one_is_ahead_stops_the_stream_and_sends_nothing_more(crossing: Crossing) -> None:
    await crossing.enqueue(RESULTS, *numbered(5))
    link = Link(crossing.client, {2: fails(crossing, 3, Fork("another history"))})
    with pytest.raises(Fork):
        await drain(over(crossing, link))
    sender = await crossing.sender()
    assert (sender.sequence, sender.delivered, sender.stopped) == (3, 1, "another history")
    assert link.pushed == 2
    assert await of_sender(crossing, "SELECT count(sent_at) FROM sealed_batches") == 2


async def test_what_becomes_of_the_one_ahead_does_not_take_back_a_receipt(crossing: Crossing) -> None:
    class Breaks(Sealer):
        async def seal_pending(
            self, connection: AsyncConnection, stream: StreamName, cursor: OutboxCursor | None = None
        ) -> BatchRef | None:
            if await value(connection, "SELECT count(*) FROM sealed_batches") == 2:
                raise OSError("the disk is full")
            return await super().seal_pending(connection, stream, cursor)

    await crossing.enqueue(RESULTS, *numbered(4))
    with pytest.raises(OSError, match="the disk is full"):
        await drain(over(crossing, Link(crossing.client), Breaks(crossing.networks.response.keys, "test")))
    assert (await crossing.sender()).delivered == 2
    assert (await drain(over(crossing, Link(crossing.client)))).batches == 2
    assert await crossing.arrived() == numbered(4)


async def test_a_record_that_was_committed_late_under_a_lower_number_is_sealed_by_the_same_run(
    crossing: Crossing,
) -> None:
    await crossing.enqueue(RESULTS, *numbered(3))
    late = b'{"late":true}'

    async def commits(really: Answer, wire: bytes) -> Receipt:
        async with crossing.networks.response.engine.begin() as connection:
            lowest = await value(connection, "SELECT min(id) FROM outbox")
            await execute(
                connection,
                "INSERT INTO outbox (id, stream, body) OVERRIDING SYSTEM VALUE VALUES (:id, 'results', :body)",
                id=lowest - 1,
                body=late,
            )
        return await really(wire)

    assert (await drain(over(crossing, Link(crossing.client, {1: commits})))).batches == 4
    assert await crossing.arrived() == [*numbered(3), late]


async def test_when_it_may_not_go_on_no_batch_more_is_sent_and_the_next_run_sends_what_was_sealed_ahead(
    crossing: Crossing,
) -> None:
    bodies = [b"%d" % number for number in range(5)]
    await crossing.enqueue(RESULTS, *bodies)
    link = Link(crossing.client)
    begun = await over(crossing, link).drain(RESULTS, lambda _: None, lambda: False)
    assert (begun.batches, link.pushed) == (1, 1)
    rest = await drain(over(crossing, link))
    assert (rest.batches, rest.records) == (2, 3)
    assert await crossing.arrived(RESULTS) == bodies
