"""A network that changes, cuts off, repeats and holds up bytes: nothing wrong is applied, and the next try heals."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from exchange.carriers.http import LinkClient
from exchange.errors import BadSignature, LinkError
from exchange.transfer.incoming import lock_receiving
from exchange.wire.http_signature import HttpSigner
from models.streams import BatchRef, StreamName
from tests.api_request.proxy import Counted, Fault, cut_at, flip, twice
from tests.link.batches import seal
from tests.link.conftest import TIMEOUT, Crossing

RESULTS, REQUESTS = StreamName.RESULTS, StreamName.REQUESTS
SEED = 20_260_102
IMPATIENT = 0.3
"""Seconds: a changed length makes either side wait for bytes that never come."""


def record(number: int) -> bytes:
    """Bytes that do not compress, so that the payload is most of what crosses."""
    return b'{"n":%d,"x":"%s"}' % (number, random.Random(number).randbytes(300).hex().encode())


@pytest.fixture
async def impatient(crossing: Crossing) -> Crossing:
    client = LinkClient(crossing.proxy.url, HttpSigner(crossing.networks.response.keys, "test"), IMPATIENT)
    return Crossing(crossing.networks, crossing.proxy, crossing.url, client)


async def heals(impatient: Crossing, again: Callable[[], Awaitable[object]]) -> None:
    """The next try succeeds; or it is the first one after it, where an answer too many was left on the connection."""
    impatient.proxy.heal()
    impatient.client._timeout = TIMEOUT
    try:
        await again()
    except BadSignature:
        await again()
    finally:
        impatient.client._timeout = IMPATIENT


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.parametrize(("fault", "times"), [(flip, 24), (cut_at, 8), (twice, 6)])
async def test_pushing_through_a_network_that_harms_bytes(
    impatient: Crossing, direction: str, fault: Callable[[int], Counted], times: int
) -> None:
    chance = random.Random(f"{SEED} {direction} {fault.__name__}")
    expected: list[bytes] = []
    harmed = 0
    for number in range(times):
        expected.append(record(number))
        await impatient.enqueue(RESULTS, expected[-1])
        one = fault(chance.randrange(1200 if direction == "to_server" else 700))
        setattr(impatient.proxy, direction, one)
        try:
            await impatient.drain()
        except LinkError:
            pass
        harmed += one.done
        arrived, sender = await impatient.arrived(), await impatient.sender()
        assert arrived in (expected, expected[:-1])
        assert sender.delivered <= (await impatient.receiver()).sequence
        assert not sender.stopped
        await heals(impatient, impatient.drain)
        assert await impatient.arrived() == expected
        assert (await impatient.sender()).delivered == number + 1
    assert harmed > times / 2
    await impatient.client.aclose()


@pytest.mark.parametrize("direction", ["to_server", "to_client"])
@pytest.mark.parametrize(("fault", "times"), [(flip, 24), (cut_at, 8), (twice, 6)])
async def test_pulling_through_a_network_that_harms_bytes(
    impatient: Crossing, direction: str, fault: Callable[[int], Counted], times: int
) -> None:
    chance = random.Random(f"{SEED} {direction} {fault.__name__}")
    expected: list[bytes] = []
    pulled: list[BatchRef] = []
    harmed = 0

    async def pull_all() -> None:
        await impatient.pull.confirm(REQUESTS)
        while (batch := await impatient.pull.once(REQUESTS, 0)) is not None:
            pulled.append(batch)

    for number in range(times):
        expected.append(record(number))
        await seal(impatient.networks.request, REQUESTS, expected[-1])
        one = fault(chance.randrange(500 if direction == "to_server" else 1500))
        setattr(impatient.proxy, direction, one)
        try:
            await pull_all()
        except LinkError:
            pass
        harmed += one.done
        assert await impatient.arrived(REQUESTS) in (expected, expected[:-1])
        sender = await impatient.sender(REQUESTS)
        assert sender.delivered <= (await impatient.receiver(REQUESTS)).sequence
        assert not sender.stopped
        await heals(impatient, pull_all)
        assert await impatient.arrived(REQUESTS) == expected
        assert (await impatient.sender(REQUESTS)).delivered == number + 1
    assert harmed > times / 2
    assert len({batch.sequence for batch in pulled}) == len(pulled)
    await impatient.client.aclose()


async def test_a_batch_that_was_held_up_arrives_late_and_changes_nothing(crossing: Crossing) -> None:
    """The sender gives up waiting, sends again past the jam, goes on; then the late bytes come out."""
    await crossing.enqueue(RESULTS, record(1))
    held: list[bytes] = []

    def hold(passing: bytes) -> bytes | None:
        held.append(passing)
        return None

    crossing.proxy.to_server = hold
    with pytest.raises(LinkError):
        await crossing.drain()
    crossing.proxy.heal()
    await crossing.enqueue(RESULTS, record(2))
    await crossing.drain()
    before = (await crossing.receiver(), await crossing.sender())
    assert before[0].sequence == 2
    reader, writer = await asyncio.open_connection("127.0.0.1", int(crossing.url.rsplit(":", 1)[1]))
    writer.write(b"".join(held))
    async with asyncio.timeout(20):
        status = await reader.readline()
    writer.close()
    assert status.split()[1] in (b"200", b"400")  # acknowledged again, or cut off before its body was held
    assert await crossing.arrived() == [record(1), record(2)]
    assert (await crossing.receiver()).sequence == 2
    assert await crossing.sender() == before[1]


async def test_a_receiver_that_hangs_is_given_up_and_tried_again(impatient: Crossing) -> None:
    await impatient.enqueue(RESULTS, record(1))
    async with impatient.networks.request.engine.begin() as holder:
        await lock_receiving(holder, RESULTS)
        with pytest.raises(LinkError):
            await impatient.drain()
    assert (await impatient.drain()).batches == 1
    assert await impatient.arrived() == [record(1)]
    await impatient.client.aclose()


def never(_: bytes) -> bytes:
    return b""


@pytest.mark.parametrize(("direction", "fault"), [("to_server", never), ("to_client", never)])
async def test_a_network_that_swallows_everything_ends_in_a_link_error(
    impatient: Crossing, direction: str, fault: Fault
) -> None:
    await impatient.enqueue(RESULTS, record(1))
    setattr(impatient.proxy, direction, fault)
    with pytest.raises(LinkError):
        await impatient.drain()
    with pytest.raises(LinkError):
        await impatient.pull.once(REQUESTS, 0)
    impatient.proxy.heal()
    await impatient.drain()
    assert await impatient.arrived() == [record(1)]
    await impatient.client.aclose()
