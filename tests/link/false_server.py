"""A server that answers the link's calls with whatever a test makes up."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from exchange.wire.http_signature import HEADER


@dataclass(frozen=True)
class Asked:
    """A call that came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def signature(self) -> str:
        return self.headers.get(HEADER.lower(), "")


Answer = Callable[[Asked], bytes]
"""Gives all the bytes that go back."""


def http_answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer's bytes; underscores in names become hyphens."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {content}" for name, content in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """Serve; gives the URL."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = dict(_pair(line) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            writer.write(answer(Asked(method, target, headers, body)))
            await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def _pair(line: str) -> tuple[str, str]:
    name, _, content = line.partition(": ")
    return name.lower(), content
