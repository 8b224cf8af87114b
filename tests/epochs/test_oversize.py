"""A batch that something on the way refuses for its size: what is not sealed yet goes in smaller ones."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import pytest

from exchange.carriers.http import LinkClient
from exchange.errors import Oversize
from exchange.recovery.epoch_ordering import EpochOrdering
from exchange.transfer.delivery import LEAST_BATCH_BYTES, Delivery
from exchange.transfer.outgoing import outgoing_stream, seal_less
from exchange.transfer.sealing import Sealer
from exchange.wire.http_signature import HttpSigner
from models.streams import StreamName
from storage.database import rows
from tests.activities.crossing import LINK, new_id
from tests.epochs.test_new_epoch import ordering
from tests.link.false_server import http_answer
from tests.verification.world import World

RESULTS = StreamName.RESULTS


class Narrow:
    """A reverse proxy that refuses bodies of more than ``limit`` bytes, as many do by default, and signs nothing."""

    limit = 200_000

    @asynccontextmanager
    async def before(self, url: str) -> AsyncIterator[str]:
        """Stand before this server; gives the URL to call instead."""
        there = urlsplit(url)

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                (int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
            )
            body = await reader.readexactly(size)
            if size > self.limit:
                writer.write(http_answer(413, b"<h1>413 Request Entity Too Large</h1>"))
            else:
                back, forth = await asyncio.open_connection(there.hostname, there.port)
                forth.write(head.replace(b"onnection: keep-alive", b"onnection: close") + body)
                writer.write(await back.read())
                forth.close()
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()


async def put_off(world: World, count: int, size: int) -> None:
    """Records that do not compress, in the outbox."""
    side = world.networks.response
    async with side.engine.begin() as connection:
        records = [
            f'{{"request_id":"{new_id()}","status":"completed","data":[],"x":"{secrets.token_urlsafe(size)[:size]}"}}'.encode()
            for _ in range(count)
        ]
        await Sealer(side.keys, LINK).enqueue(connection, RESULTS, records)


async def test_what_is_not_sealed_is_split_and_the_refused_batch_waits_for_an_operator(world: World) -> None:
    side, narrow = world.networks.response, Narrow()
    await put_off(world, 20, 20_000)
    async with narrow.before(world.url) as url:
        link = LinkClient(url, HttpSigner(side.keys, LINK))
        delivery = Delivery(side.engine, world.delivery.sealer, link)
        with pytest.raises(Oversize, match=r"batch 1 has .* bytes and was refused"):
            await delivery.drain(RESULTS, lambda _: None)
        async with side.engine.begin() as connection:
            head = await outgoing_stream(connection, RESULTS)
        assert head.stopped is None
        assert head.batch_bytes is not None
        assert LEAST_BATCH_BYTES <= head.batch_bytes < 400_000
        await put_off(world, 20, 20_000)
        with pytest.raises(Oversize):  # nothing overtakes it
            await delivery.drain(RESULTS, lambda _: None)
        ordered: EpochOrdering = ordering(world)
        outcome = await ordered.order(RESULTS, "sealed too large for the proxy", "tests")
        assert outcome.resealed == 20
        assert outcome.resealed_batches > 1
        done = await delivery.drain(RESULTS, lambda _: None)
        assert done.records == 40
        await link.aclose()
    async with side.engine.connect() as connection:
        sizes = [size for (size,) in await rows(connection, "SELECT raw_bytes FROM sealed_batches WHERE epoch = 2")]
    assert max(sizes) <= head.batch_bytes


async def test_a_larger_batch_that_came_through_lifts_the_bound(world: World) -> None:
    side, narrow = world.networks.response, Narrow()
    await put_off(world, 20, 20_000)
    async with narrow.before(world.url) as url:
        link = LinkClient(url, HttpSigner(side.keys, LINK))
        delivery = Delivery(side.engine, world.delivery.sealer, link)
        with pytest.raises(Oversize):
            await delivery.drain(RESULTS, lambda _: None)
        narrow.limit = 10_000_000
        done = await delivery.drain(RESULTS, lambda _: None)
        assert (done.batches, done.records) == (1, 20)
        await link.aclose()
    async with side.engine.begin() as connection:
        assert (await outgoing_stream(connection, RESULTS)).batch_bytes is None


async def test_a_single_record_beyond_the_bound_goes_alone(world: World) -> None:
    side = world.networks.response
    await put_off(world, 3, LEAST_BATCH_BYTES + 1000)
    async with side.engine.begin() as connection:
        await outgoing_stream(connection, RESULTS)
        await seal_less(connection, RESULTS, LEAST_BATCH_BYTES)
        sealed = [await world.delivery.sealer.seal_pending(connection, RESULTS) for _ in range(3)]
    assert [batch.records for batch in sealed if batch] == [1, 1, 1]
