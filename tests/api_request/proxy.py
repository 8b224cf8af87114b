"""A TCP proxy between two real programs, which does to the bytes what a bad network does."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

CHUNK = 64 * 1024

Fault = Callable[[bytes], bytes | None]
"""What becomes of bytes that pass; None: the connection is cut instead."""


def unharmed(passing: bytes) -> bytes:
    return passing


class Proxy:
    """Passes bytes on until told otherwise. What `to_server` and `to_client` say holds for every connection."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0
        self.to_server: Fault = unharmed
        self.to_client: Fault = unharmed
        self.accepts = True
        self.passing = asyncio.Event()
        """While it is not set, bytes are held up."""
        self.passing.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def heal(self) -> None:
        """Everything passes again."""
        self.to_server = self.to_client = unharmed
        self.accepts = True
        self.passing.set()

    async def cut(self) -> None:
        """End all connections and accept none."""
        self.accepts = False
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection from a client."""
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            if not self.accepts:
                return
            back, there = await asyncio.open_connection(*self._target)
            directions = [
                asyncio.create_task(self._pass(reader, there, lambda chunk: self.to_server(chunk))),
                asyncio.create_task(self._pass(back, writer, lambda chunk: self.to_client(chunk))),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._connections.discard(task)
            for side in (writer, there):
                if side is not None:
                    side.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: Fault) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK):
                await self.passing.wait()
                changed = fault(chunk)
                if changed is None:
                    return
                writer.write(changed)
                await writer.drain()


@asynccontextmanager
async def proxied(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy before ``host:port``, on a free port of this machine."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.take, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.cut()


class Counted:
    """Does ``fault`` to the byte at ``place``, counted from 0 from now on; ``done`` tells that it was."""

    def __init__(self, place: int, fault: Callable[[bytes, int], bytes | None]) -> None:
        self._left = place
        self._fault = fault
        self.done = False

    def __call__(self, passing: bytes) -> bytes | None:
        if self.done or self._left >= len(passing):
            self._left -= 0 if self.done else len(passing)
            return passing
        self.done = True
        return self._fault(passing, self._left)


def flip(place: int) -> Counted:
    """Change one byte."""
    return Counted(place, lambda passing, at: passing[:at] + bytes([passing[at] ^ 1]) + passing[at + 1 :])


def cut_at(place: int) -> Counted:
    """End the connection in the middle. The part before is lost as well, which is no worse."""
    return Counted(place, lambda _passing, _at: None)


def twice(place: int) -> Counted:
    """Send the chunk with this byte a second time."""
    return Counted(place, lambda passing, _at: passing + passing)
