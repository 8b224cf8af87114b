"""HTTP as bytes: what no client would send, and what came back."""

import asyncio
import contextlib
from dataclasses import dataclass

PATIENCE = 20.0


@dataclass(frozen=True)
class Answered:
    """Everything that came back until the server ended the connection."""

    content: bytes

    @property
    def answers(self) -> int:
        """How many answers came: one more than asked for means that something was smuggled in."""
        return self.content.count(b"HTTP/1.1 ")

    @property
    def status(self) -> int:
        """Of the first answer; 0 where the connection was ended without one."""
        return int(self.content[9:12]) if self.content.startswith(b"HTTP/1.1 ") else 0


async def send(port: int, content: bytes, then_leave: bool = False) -> Answered:
    """Send and read to the end. ``then_leave``: say that no more comes, for which a server may drop the call."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    came = b""
    try:
        writer.write(content)
        await writer.drain()
        if then_leave:
            writer.write_eof()
        async with asyncio.timeout(PATIENCE):
            while chunk := await reader.read(65536):
                came += chunk
    except ConnectionError:
        pass  # cut off, which is an answer too
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return Answered(came)


def call(method: str, target: str, *headers: bytes, body: bytes = b"") -> bytes:
    """A whole request, with these headers and no others but Host and Connection."""
    lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: x", b"Connection: close", *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
