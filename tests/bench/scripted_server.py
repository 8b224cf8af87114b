"""An HTTP server for tests of the load generator: it answers what a function says, in pieces if need be."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Script = Callable[[int, str, str], list[bytes] | None]
"""Gets the number of the call, method with path, and body; gives the pieces of the answer, or None: none at all."""
_LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


@dataclass
class Scripted:
    """The running server and what it saw."""

    port: int = 0
    calls: list[str] = field(default_factory=list)
    """Method and path of each."""
    heads: list[str] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    most_at_once: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Answers wait for it."""


def answer(status: int, body: str) -> list[bytes]:
    """A whole answer in one piece."""
    return [f"HTTP/1.1 {status} Said\r\nContent-Type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()]


@asynccontextmanager
async def scripted_server(script: Script, *, held: bool = False) -> AsyncIterator[Scripted]:
    """Serve; with ``held`` no answer goes out before `Scripted.released` is set."""
    seen = Scripted()
    if not held:
        seen.released.set()
    tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks[task] = writer
        seen.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1])) if length else b""
                seen.calls.append(head.split(b" HTTP", 1)[0].decode())
                seen.heads.append(head.decode())
                seen.at_once += 1
                seen.most_at_once = max(seen.most_at_once, seen.at_once)
                pieces = script(len(seen.calls) - 1, seen.calls[-1], body.decode())
                await seen.released.wait()
                seen.at_once -= 1
                if pieces is None:
                    return
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        seen.released.set()
        for writer in tasks.values():
            writer.close()
        await asyncio.gather(*tasks, return_exceptions=True)
