"""A TCP proxy in the link that behaves like a bad network while harms are applied."""

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
"""Number of requests that are kept for a replay."""
LARGEST_KEPT = 1 << 20
"""Largest request that is kept, in bytes."""
REPLAY_SECONDS = 40.0
"""Seconds to wait for the answer to a replayed request; the server holds a poll for 25 s."""


class Cut(Exception):
    """The connection ends here, in the middle of a message."""

    def __init__(self, passing: bytes = b"") -> None:
        super().__init__()
        self.passing = passing
        """Bytes that still pass."""


class Harm(Protocol):
    """One defect of the network. Raises `Cut` to end the connection."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        """The bytes that pass instead of ``data``."""


@dataclass
class Slow:
    """Delays every chunk by ``latency`` seconds and limits the bandwidth to ``bytes_per_second``."""

    latency: float
    bytes_per_second: float

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        await asyncio.sleep(self.latency + len(data) / self.bytes_per_second)
        return data


class _Sometimes:
    """Harms a share of the chunks in one direction; the same ones for the same seed."""

    def __init__(self, direction: Direction, share: float, seed: int) -> None:
        self._direction = direction
        self._share = share
        self._chance = random.Random(seed)  # noqa: S311
        self.done = 0
        """Chunks harmed so far."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        if direction != self._direction or self._chance.random() >= self._share:
            return data
        self.done += 1
        return self.harmed(data)

    def harmed(self, data: bytes) -> bytes:
        raise NotImplementedError


class Corrupt(_Sometimes):
    """Changes one byte."""

    def harmed(self, data: bytes) -> bytes:
        place = self._chance.randrange(len(data))
        return data[:place] + bytes([data[place] ^ self._chance.randrange(1, 256)]) + data[place + 1 :]


class Truncate(_Sometimes):
    """Ends the connection in the middle of a chunk."""

    def harmed(self, data: bytes) -> bytes:
        raise Cut(data[: self._chance.randrange(len(data))])


class Double(_Sometimes):
    """Sends a chunk twice."""

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
    """`Proxy` ends all connections and refuses new ones."""

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        raise Cut


class Replay:
    """`Proxy` sends a share of the requests again after they have passed and, at the end, a share of older ones."""

    def __init__(self, share: float, seed: int) -> None:
        self._share = share
        self._chance = random.Random(seed)  # noqa: S311

    def wants_again(self) -> bool:
        """Whether to send the next request again."""
        return self._chance.random() < self._share

    async def passes(self, direction: Direction, data: bytes) -> bytes:
        return data


class Proxy:
    """Passes bytes between clients and one server, through all applied harms."""

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._harms: list[Harm] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self._recent: deque[bytes] = deque(maxlen=KEPT)
        self._replays: set[asyncio.Task[None]] = set()
        self.replayed = 0
        """Requests sent again so far."""
        self.port = 0

    @property
    def url(self) -> str:
        """Address for clients."""
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
        """Apply a harm for the block."""
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
        """Send the whole request on a new connection and drop the answer."""
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
    """Finds complete HTTP/1.1 requests (RFC 9112) with a Content-Length or no body in a stream of bytes."""

    def __init__(self) -> None:
        self._read = bytearray()

    def read(self, data: bytes) -> list[bytes]:
        """Add bytes; returns the requests that they complete. Other data is skipped."""
        self._read += data
        whole: list[bytes] = []
        while (length := self._length()) is not None and len(self._read) >= length:
            whole.append(bytes(self._read[:length]))
            del self._read[:length]
        if len(self._read) > LARGEST_KEPT:
            self._read.clear()
        return whole

    def _length(self) -> int | None:
        """Length of the first request; None while its head is incomplete."""
        head, end, _ = self._read.partition(b"\r\n\r\n")
        if not end:
            return None
        body = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                body = int(value)
        return len(head) + len(end) + body
