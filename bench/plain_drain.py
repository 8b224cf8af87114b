"""The limit of draining: the same data work as plain and fast as possible. Two processes, no framework.

`send` deletes rows from the outbox and sends them as a signed, compressed chunk over TCP; `receive` verifies it, parses
it, stores it and answers. The deletion is committed after the answer. The sender prepares the next chunk meanwhile, and
the receiver reads one while it stores another. There is no chain, no receipt, no copy of a batch, no cache and no
notice; a lost answer would duplicate a chunk.

Run by `bench.drain`: ``python -m bench.plain_drain send|receive``, configured by environment variables.
"""

import asyncio
import hashlib
import os
import struct
import sys
from operator import itemgetter

import asyncpg
import orjson
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

CHUNK = 5000
KEY = Ed25519PrivateKey.from_private_bytes(b"plain drain, only for this bench")
_HEAD = struct.Struct("!II64s")
"""Bytes of payload and of records, signature."""
_FINAL = frozenset(("completed", "failed", "expired", "cancelled"))

_TAKE = """
DELETE FROM outbox WHERE ctid = ANY(ARRAY(SELECT ctid FROM outbox WHERE id > $1 ORDER BY id LIMIT $2))
RETURNING id, body
"""
_STORE = """
INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
SELECT request_id, requests.user_id, status, body, 1, 1
FROM unnest($1::uuid[], $2::text[], $3::bytea[]) AS arrived (request_id, status, body) JOIN requests USING (request_id)
ON CONFLICT (request_id) DO NOTHING
"""


async def send() -> None:
    """Wait for a line on standard input, then send until the outbox is empty."""
    connections = [await asyncpg.connect(os.environ["BENCH_DATABASE"]) for _ in range(2)]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["BENCH_PORT"]))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    last, turn = 0, 0
    under_way: asyncio.Task[None] | None = None
    while True:
        connection = connections[turn]
        transaction = connection.transaction()
        await transaction.start()
        taken = await connection.fetch(_TAKE, last, CHUNK)
        taken.sort(key=itemgetter(0))
        if not taken:
            await transaction.rollback()
            break
        last, turn = taken[-1][0], 1 - turn
        message = await asyncio.to_thread(_packed, [row[1] for row in taken])
        if under_way is not None:
            await under_way
        writer.write(message)
        under_way = asyncio.create_task(_answered(reader, transaction))
    if under_way is not None:
        await under_way
    writer.close()


def _packed(records: list[bytes]) -> bytes:
    raw = b"\n".join(records)
    payload = zstandard.ZstdCompressor(level=3).compress(raw)
    return _HEAD.pack(len(payload), len(raw), KEY.sign(hashlib.sha256(payload).digest())) + payload


async def _answered(reader: asyncio.StreamReader, transaction: asyncpg.transaction.Transaction) -> None:
    await reader.readexactly(1)
    await transaction.commit()


async def receive() -> None:
    """Receive on the port until the connection ends."""
    connection = await asyncpg.connect(os.environ["BENCH_DATABASE"])
    ended = asyncio.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parsed: asyncio.Queue[tuple[list[str], list[str], list[bytes]] | None] = asyncio.Queue(1)
        storing = asyncio.create_task(store(parsed, writer))
        try:
            while True:
                size, raw_size, signature = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                payload = await reader.readexactly(size)
                await parsed.put(await asyncio.to_thread(_opened, payload, raw_size, signature))
        except asyncio.IncompleteReadError:
            pass
        await parsed.put(None)
        await storing
        ended.set()

    async def store(
        parsed: asyncio.Queue[tuple[list[str], list[str], list[bytes]] | None], writer: asyncio.StreamWriter
    ) -> None:
        while (columns := await parsed.get()) is not None:
            await connection.execute(_STORE, *columns)
            writer.write(b"!")

    server = await asyncio.start_server(take, "127.0.0.1", int(os.environ["BENCH_PORT"]), limit=16 * 1024 * 1024)
    print("ready", flush=True)
    await ended.wait()
    server.close()


def _opened(payload: bytes, raw_size: int, signature: bytes) -> tuple[list[str], list[str], list[bytes]]:
    KEY.public_key().verify(signature, hashlib.sha256(payload).digest())
    lines = zstandard.ZstdDecompressor().decompress(payload, max_output_size=raw_size).split(b"\n")
    ids, statuses = [], []
    for line in lines:
        result = orjson.loads(line)
        if result["status"] not in _FINAL or not isinstance(result["data"], list):
            raise ValueError("not a result")
        ids.append(result["request_id"])
        statuses.append(result["status"])
    return ids, statuses, lines


if __name__ == "__main__":
    asyncio.run({"send": send, "receive": receive}[sys.argv[1]]())
