"""The attacker of rows "captured request network": it has that network's signing key and answers in its place.

A proxy on the link. A call is passed on to the real request network unless a lie is told about it; a lie is signed as
that network signs, so nothing but what the answer says is wrong with it.
"""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import zstandard

from exchange.wire.batch import to_bundle, to_wire
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.keys import LinkKeys
from exchange.wire.messages import Receipt
from models.streams import GENESIS, StreamName
from tests.activities.crossing import LINK
from tests.link.false_server import Asked, http_answer


@dataclass(frozen=True)
class Lie:
    """What is answered in place of the real network's answer."""

    status: int
    body: bytes = b""
    signed: bool = True


Liar = Callable[[Asked], Lie | None]


def honest(_asked: Asked) -> Lie | None:
    """Passes everything on."""
    return None


@dataclass
class Captured:
    """The captured network. ``url`` is the proxy's address; ``told`` counts the lies."""

    keys: LinkKeys
    real: str
    liar: Liar = honest
    url: str = ""
    told: int = 0
    chain: "Chain" = field(init=False)

    def __post_init__(self) -> None:
        self.chain = Chain(self.keys)

    def answer_polls(self, *wires: bytes) -> None:
        """Answer each poll for requests with these batches, whatever was asked for, and take the receipts."""
        bundle = to_bundle(wires)

        def lie(asked: Asked) -> Lie | None:
            if asked.target.endswith("/streams/requests/receipts"):
                return Lie(204)
            return Lie(200, bundle) if _is_poll(asked) else None

        self.liar = lie

    def answer(self, part: str, lie: Callable[[Asked], Lie]) -> None:
        """Lie about each call whose target contains ``part``."""
        self.liar = lambda asked: lie(asked) if part in asked.target else None

    def receipt(self, stream: StreamName, **fields: Any) -> bytes:
        """A receipt that says what the attacker likes."""
        truth = {"link": LINK, "stream": stream, "epoch": 1, "head": GENESIS.hex(), "key_id": self.keys.key_id}
        counts = {"received": 0, "applied": 0, "quarantined": 0}
        return signed(self.keys, Receipt.purpose, truth | {"issued_at": datetime.now(UTC)} | counts | fields)


@dataclass
class Chain:
    """Batches of the requests stream that are right in all that their receiver can check of the chain."""

    keys: LinkKeys
    stream: StreamName = StreamName.REQUESTS
    epoch: int = 1
    sequence: int = 0
    record: int = 0
    head: bytes = GENESIS

    def seal(self, records: Sequence[bytes], **lies: Any) -> bytes:
        """The next batch."""
        raw = b"".join(record + b"\n" for record in records)
        payload = zstandard.ZstdCompressor(level=19).compress(raw)
        manifest = {
            "spec": 1, "link": LINK, "stream": self.stream, "epoch": self.epoch, "sequence": self.sequence + 1,
            "first_record": self.record + 1, "last_record": self.record + len(records), "count": len(records),
            "part": 1, "parts": 1, "raw_bytes": len(raw), "payload_bytes": len(payload),
            "payload_sha256": hashlib.sha256(payload).hexdigest(), "previous": self.head.hex(),
            "key_id": self.keys.key_id, "sealed_at": datetime.now(UTC),
        }  # fmt: skip
        content = orjson.dumps(manifest | lies)
        self.sequence, self.record = self.sequence + 1, self.record + len(records)
        self.head = hashlib.sha256(content).digest()
        return to_wire(content, self.keys.sign("manifest", content), payload)


def signed(keys: LinkKeys, purpose: str, message: dict[str, Any]) -> bytes:
    """A message of this purpose, as it crosses."""
    content = orjson.dumps({"spec": 1} | message)
    return content + b"\n" + base64.b64encode(keys.sign(purpose, content))


@asynccontextmanager
async def capturing(keys: LinkKeys, real: str) -> AsyncIterator[Captured]:
    """Serve a captured network in front of the request network at ``real``."""
    captured = Captured(keys, real)
    signer = HttpSigner(keys, LINK)
    async with httpx.AsyncClient(base_url=real, trust_env=False, timeout=60) as http:

        async def answer(asked: Asked) -> bytes:
            lie = captured.liar(asked)
            if lie is None:
                kept = {name: content for name, content in asked.headers.items() if name not in _OF_CONNECTION}
                came = await http.request(asked.method, asked.target, content=asked.body, headers=kept)
                return http_answer(came.status_code, came.content, **{HEADER: came.headers.get(HEADER, "")})
            captured.told += 1
            signature = signer.sign_response(asked.signature, lie.status, lie.body) if lie.signed else ""
            return http_answer(lie.status, lie.body, **{HEADER: signature})

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = lines[0].split(" ")
                pairs = (line.partition(": ") for line in lines[1:] if line)
                headers = {name.lower(): content for name, _, content in pairs}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                writer.write(await answer(Asked(method, target, headers, body)))
                await writer.drain()
            except (asyncio.IncompleteReadError, OSError):
                pass  # the caller has left
            finally:
                writer.close()

        server = await asyncio.start_server(take, "127.0.0.1", 0)
        try:
            captured.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield captured
        finally:
            server.close()


_OF_CONNECTION = {"host", "connection", "content-length", "accept-encoding"}


def _is_poll(asked: Asked) -> bool:
    return asked.method == "GET" and "/streams/requests/batches?" in asked.target
