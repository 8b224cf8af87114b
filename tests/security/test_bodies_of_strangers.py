"""A stranger's body is not kept: large ones from many at once must not fill the memory of the request network's API."""

import asyncio

import pytest

from exchange.wire.batch import MAX_WIRE_BYTES
from exchange.wire.http_signature import HEADER, HttpSigner
from tests.link.strangers import other_keys
from tests.security.conftest import LINK, Airlock
from tests.security.raw import call

STRANGERS = 40
TARGET = "/link/v1/streams/results/batches"


@pytest.mark.parametrize("who", ["without a signature", "with a key that is not trusted"])
async def test_what_strangers_send_is_not_kept_until_it_is_refused(airlock: Airlock, who: str) -> None:
    """Each sends all of the largest batch but its last bytes, and waits."""
    keys = other_keys(airlock.networks.response.keys)
    signature = HttpSigner(keys, LINK).sign_request("POST", TARGET, b"")
    header = b"" if who == "without a signature" else f"{HEADER}: {signature}".encode()
    length = f"Content-Length: {MAX_WIRE_BYTES}".encode()
    head = call("POST", TARGET, *filter(None, (length, header)))
    before = airlock.request.resident
    opened = [await asyncio.open_connection("127.0.0.1", airlock.request.port) for _ in range(STRANGERS)]

    async def fill(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(MAX_WIRE_BYTES // 65536):
            writer.write(bytes(65536))
            await writer.drain()

    await asyncio.gather(*(fill(*connection) for connection in opened))
    grown = airlock.request.resident - before
    try:
        assert grown < STRANGERS * MAX_WIRE_BYTES / 4, f"{grown / 2**20:.0f} MiB are held for strangers"
        for _, writer in opened:
            writer.write(bytes(MAX_WIRE_BYTES % 65536))
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(reader.readline() for reader, _ in opened))
        assert {answer.split()[1] for answer in answers} <= {b"401", b"403"}, "and each reads why"
    finally:
        for _, writer in opened:
            writer.close()
