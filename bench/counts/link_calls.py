"""Counts calls of the request network's link API and the bytes that cross, in an ASGI layer around the app."""

from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.counts.wire import LOOKS


@dataclass
class Call:
    """One call. ``looks``: transactions that ended during it; ``status``: 0 while it is in progress."""

    method: str
    path: str
    sent: int
    """Bytes from the caller: request line, headers and body."""
    came: int = 0
    """Bytes to the caller."""
    status: int = 0
    looks: list[str] = field(default_factory=list)

    @property
    def is_idle_poll(self) -> bool:
        """Whether it is a poll that found no batch and waits for one."""
        return self.method == "GET" and self.path.endswith("/batches") and not self.status and bool(self.looks)


class LinkCalls:
    """Calls of paths below ``/link/``, in order of arrival."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @property
    def under_way(self) -> list[Call]:
        return [call for call in self.calls if not call.status]

    def around(self, app: ASGIApp) -> ASGIApp:
        """Wrap the app so that its calls are counted."""

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not scope["path"].startswith("/link/"):
                return await app(scope, receive, send)
            target = scope["path"] + "?" + scope["query_string"].decode("latin-1")
            call = Call(scope["method"], scope["path"], len(scope["method"]) + len(target) + _size(scope["headers"]))
            self.calls.append(call)

            async def received() -> Message:
                message = await receive()
                call.sent += len(message.get("body", b""))
                return message

            async def answered(message: Message) -> None:
                await send(message)
                call.came += _size(message.get("headers", ())) + len(message.get("body", b""))
                if message["type"] == "http.response.start":
                    status.append(message["status"])
                elif not message.get("more_body"):
                    call.status = status[0]

            status: list[int] = []
            token = LOOKS.set(call.looks)
            try:
                return await app(scope, received, answered)
            finally:
                LOOKS.reset(token)
                call.status = call.status or 499  # the caller has disconnected

        return counted


def _size(headers: Any) -> int:
    """Bytes on the wire: name, colon, space, value, line end."""
    return sum(len(name) + len(content) + 4 for name, content in headers)
