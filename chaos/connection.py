"""A minimal HTTP/1.1 client: persistent connections, one call at a time on each, only Content-Length is parsed."""

import asyncio
from collections.abc import Callable, Mapping

Then = Callable[[int, bytes], None]
"""Called once with an answer's status and body, or with 0 and the reason why there is none."""

IDLE_SECONDS = 10.0
"""A connection that was idle for longer is not reused: the server may be closing it."""
CONNECT_SECONDS = 10.0
CLOSED = b"the connection was closed before the answer"


class Connection(asyncio.Protocol):
    """One connection; returns to the pool's ``free`` after each answer. ``patience`` as in `Connections`."""

    def __init__(self, free: "list[Connection]", patience: float | None = None) -> None:
        self._free = free
        self._patience = patience
        self._giving_up: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._then: Then | None = None
        self._received = b""
        self._body_at = 0
        self._whole = 0
        self.idle_since = 0.0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def ask(self, call: bytes, then: Then) -> None:
        """Send a whole call."""
        assert self._transport is not None
        assert self._then is None, "one call at a time"
        if not self.is_open:
            then(0, CLOSED)
            return
        self._then = then
        if self._patience is not None:
            reason = f"no answer within {self._patience:g} s"
            self._giving_up = asyncio.get_running_loop().call_later(self._patience, self._fail, reason)
        self._transport.write(call)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not self._whole and not self._measured():
            return
        if len(self._received) < self._whole:
            return
        if len(self._received) > self._whole:
            self._fail("more came than the answer's Content-Length says")
            return
        status, body, then = int(self._received[9:12]), self._received[self._body_at :], self._ended()
        self._received, self._whole = b"", 0
        self.idle_since = asyncio.get_running_loop().time()
        self._free.append(self)
        if then is not None:
            then(status, body)

    def _measured(self) -> bool:
        """Whether the head is complete, so that the whole length is known."""
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = self._received[:end].lower()
        at = head.find(b"\r\ncontent-length:")
        if not head.startswith(b"http/1.1 ") or at < 0:
            self._fail("the answer is no HTTP/1.1 with a Content-Length")
            return False
        self._body_at = end + 4
        self._whole = self._body_at + int(head[at + 17 :].split(b"\r\n", 1)[0])
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if (then := self._ended()) is not None:
            then(0, CLOSED)

    def _fail(self, reason: str) -> None:
        then = self._ended()
        self.close()
        if then is not None:
            then(0, reason.encode())

    def _ended(self) -> Then | None:
        """End the call; returns its callback."""
        if self._giving_up is not None:
            self._giving_up.cancel()
        then, self._then, self._giving_up = self._then, None, None
        return then

    def close(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.close()


class Connections:
    """A pool of connections to one server, one for each concurrent call.

    ``patience``: seconds that a call may last; None for no limit.
    """

    def __init__(self, port: int, host: str = "127.0.0.1", patience: float | None = None) -> None:
        self._port = port
        self._host = host
        self._patience = patience
        self._free: list[Connection] = []
        self._opening: set[asyncio.Task[None]] = set()

    def ask(self, call: bytes, then: Then) -> None:
        """Send a call on the connection that was used last, or on a new one if none is free."""
        while self._free:
            connection = self._free.pop()
            if connection.is_open and asyncio.get_running_loop().time() - connection.idle_since < IDLE_SECONDS:
                connection.ask(call, then)
                return
            connection.close()
        opening = asyncio.create_task(self._open(call, then))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)

    async def call(self, call: bytes) -> tuple[int, bytes]:
        """Send a call; returns the answer's status and body, or 0 and the reason why there is none."""
        answered: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()

        def then(status: int, body: bytes) -> None:
            if not answered.done():  # the caller may have been cancelled
                answered.set_result((status, body))

        self.ask(call, then)
        return await answered

    def _opened(self, opening: "asyncio.Task[None]") -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and (error := opening.exception()) is not None:
            raise error  # to the loop's exception handler: nobody awaits this task

    async def _open(self, call: bytes, then: Then) -> None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(self._free, self._patience), self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            then(0, f"no connection: {type(error).__name__}".encode())
            return
        connection.ask(call, then)


def as_call(method: str, path: str, body: str | bytes, headers: Mapping[str, str], host: str = "127.0.0.1") -> bytes:
    """The bytes of a call; the body is JSON."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *(f"{name}: {text}" for name, text in headers.items())]
    if content:
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content
