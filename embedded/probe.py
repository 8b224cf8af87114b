"""Asks a server of this machine whether it is ready. It needs no client library, whose import would delay `up`."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

INTERVAL = 0.05
"""Seconds between two tries."""
PATIENCE = 5.0
"""Seconds for one try."""


async def until(succeeds: Callable[[], Awaitable[bool]]) -> None:
    """Try until it succeeds. A refused connection or an unreadable answer counts as a failure."""
    while True:
        with contextlib.suppress(OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
            if await asyncio.wait_for(succeeds(), PATIENCE):
                return
        await asyncio.sleep(INTERVAL)


async def exchange(place: int | Path, message: bytes, limit: int = 1 << 20) -> bytes:
    """Send a message and return the answer until the server closes the connection, at most ``limit`` bytes.

    ``place``: a port on 127.0.0.1, or a unix socket.
    """
    reader, writer = await (
        asyncio.open_unix_connection(place) if isinstance(place, Path) else asyncio.open_connection("127.0.0.1", place)
    )
    try:
        writer.write(message)
        received = b""
        while len(received) < limit and (chunk := await reader.read(65536)):
            received += chunk
        return received
    finally:
        writer.close()


async def http(port: int, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of an answer over HTTP/1.0 (RFC 1945), which ends when the server closes the connection."""
    head = f"{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    answer = await exchange(port, f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
    start, _, content = answer.partition(b"\r\n\r\n")
    return int(start.split(maxsplit=2)[1]), content


async def until_ready(port: int) -> None:
    """Return once the API on this port is ready."""

    async def is_ready() -> bool:
        status, _ = await http(port, "GET", "/readyz")
        return status == 200

    await until(is_ready)
