"""A TCP proxy that stands in the link and does to the bytes what a bad network does, for as long as it is told to."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

Direction = Literal["to-server", "to-client"]

CHUNK = 16 * 1024
KEPT = 40
"""Requests that are remembered, to be sent again."""
LARGEST_KEPT = 1 << 20
"""Bytes of a request beyond which it is not remembered."""
REPLAY_SECONDS = 40.0
"""How long the answer to a repeated request is waited for; a poll is held for 25 s."""


class Cut(Exception):
    """The connection ends here, in the middle of what passes."""

    def __init__(self, passing: bytes = b"") -> None:
        super().__init__()
        self.passing = passing
        """What still gets through."""


class Harm(Protocol):
    """One thing that is wrong with the network. Raises `Cut` to end the connection."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        """What becomes of bytes on their way."""


@dataclass
class Slow:
    """Holds up every piece for ``latency`` seconds and lets ``bytes_per_second`` through."""

    latency: float
    bytes_per_second: float

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        await asyncio.sleep(self.latency + len(data) / self.bytes_per_second)
        return data


class _Sometimes:
    """Does its harm to a share of the pieces that go in one direction; the same ones for the same seed."""

    def __init__(self, direction: Direction, share: float, seed: int) -> None:
        self._direction = direction
        self._share = share
        self._chance = random.Random(seed)  # noqa: S311
        self.done = 0
        """Pieces harmed so far."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        if direction != self._direction or self._chance.random() >= self._share:
            return data
        self.done += 1
        return self.harmed(data)

    def harmed(self, data: bytes) -> bytes:
        raise NotImplementedError


class Corrupt(_Sometimes):
    """Changes one byte to another."""

    def harmed(self, data: bytes) -> bytes:
        place = self._chance.randrange(len(data))
        return data[:place] + bytes([data[place] ^ self._chance.randrange(1, 256)]) + data[place + 1 :]


class Truncate(_Sometimes):
    """Ends the connection in the middle of a piece."""

    def harmed(self, data: bytes) -> bytes:
        raise Cut(data[: self._chance.randrange(len(data))])


class Double(_Sometimes):
    """Sends a piece twice."""

    def harmed(self, data: bytes) -> bytes:
        return data + data


class Hang:
    """Holds up every piece until it is over."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        await self.over.wait()
        return data


class Refuse:
    """`Proxy` ends all connections and takes none."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        raise Cut


class Replay:
    """`Proxy` sends a share of the requests once more when they have passed and, at the end, a share of older ones."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._chance = random.Random(seed)  # noqa: S311

    def wants_again(self) -> bool:
        """Whether the next request is one of them."""
        return self._chance.random() < self._share

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        return data


class Proxy:
    """Passes bytes between clients and one server, through all harms that are in force."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._harms: list[Harm] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._recent: deque[bytes] = deque(maxlen=KEPT)
        self._replays: set[asyncio.Task[None]] = set()
        self.replayed = 0
        """Requests that were sent once more, so far."""
        self.port = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Listen on a free port."""
        self._listening = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End all connections and stop listening."""
        if self._listening is not None:
            self._listening.close()
        await self._end(self._connections | self._replays)

    @contextmanager
    def harm(self, harm: Harm) -> Iterator[None]:
        """Have something wrong with the network for a while."""
        self._harms.append(harm)
        if isinstance(harm, Refuse):
            for task in self._connections:
                task.cancel()
        try:
            yield
        finally:
            self._harms.remove(harm)
            if isinstance(harm, Hang):
                harm.over.set()
            for request in tuple(self._recent):
                if isinstance(harm, Replay) and harm.wants_again():
                    self._replay(request)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        there: asyncio.StreamWriter | None = None
        try:
            if any(isinstance(harm, Refuse) for harm in self._harms):
                return
            back, there = await asyncio.open_connection(*self._server)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pass("to-server", reader, there))
                both.create_task(self._pass("to-client", back, writer))
        except* (OSError, Cut):
            pass
        except* asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            for side in (writer, there):
                if side is not None:
                    side.transport.abort()

    async def _pass(self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen = RequestReader() if direction == "to-server" else None
        while data := await reader.read(CHUNK):
            for request in seen.read(data) if seen else ():
                self._saw(request)
            try:
                for harm in tuple(self._harms):
                    data = await harm.passes(direction, data)
            except Cut as cut:
                writer.write(cut.passing)
                await writer.drain()
                raise
            writer.write(data)
            await writer.drain()
        raise Cut

    def _saw(self, request: bytes) -> None:
        self._recent.append(request)
        for harm in self._harms:
            if isinstance(harm, Replay) and harm.wants_again():
                self._replay(request)

    def _replay(self, request: bytes) -> None:
        task = asyncio.create_task(self._send_again(request))
        self._replays.add(task)
        task.add_done_callback(self._replays.discard)

    async def _send_again(self, request: bytes) -> None:
        """The whole request on a connection of its own; the answer goes nowhere."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(REPLAY_SECONDS):
                reader, writer = await asyncio.open_connection(*self._server)
                try:
                    self.replayed += 1
                    writer.write(request)
                    await writer.drain()
                    await reader.read(1)
                finally:
                    writer.transport.abort()

    @staticmethod
    async def _end(tasks: set[asyncio.Task[None]]) -> None:
        ending = list(tasks)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


class RequestReader:
    """Finds whole HTTP/1.1 requests (RFC 9112) with a Content-Length or no body in a stream of bytes."""

    def __init__(self) -> None:
        self._read = bytearray()

    def read(self, data: bytes) -> list[bytes]:
        """Take bytes in; gives the requests that they complete. What is not such a request is passed over."""
        self._read += data
        whole: list[bytes] = []
        while (length := self._length()) is not None and len(self._read) >= length:
            whole.append(bytes(self._read[:length]))
            del self._read[:length]
        if len(self._read) > LARGEST_KEPT:
            self._read.clear()
        return whole

    def _length(self) -> int | None:
        """Bytes of the first request; None while its head is not there."""
        head, end, _ = self._read.partition(b"\r\n\r\n")
        if not end:
            return None
        body = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                body = int(value)
        return len(head) + len(end) + body
