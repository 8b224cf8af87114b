"""The calls that the request network's API takes, with the bytes that cross: counted around the app itself."""

from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.counts.wire import LOOKS


@dataclass
class Call:
    """One call. ``looks``: transactions that ended on its behalf; ``status``: 0 while it is under way."""

    method: str
    path: str
    sent: int
    """Bytes from the caller: line, headers and body."""
    came: int = 0
    """Bytes to the caller."""
    status: int = 0
    looks: list[str] = field(default_factory=list)

    @property
    def is_idle_poll(self) -> bool:
        """Whether it has looked for a batch, found none, and waits."""
        return self.method == "GET" and self.path.endswith("/batches") and not self.status and bool(self.looks)


class LinkCalls:
    """Those to paths below ``/link/``, in the order in which they came."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    @property
    def under_way(self) -> list[Call]:
        return [call for call in self.calls if not call.status]

    def around(self, app: ASGIApp) -> ASGIApp:
        """The app, with its calls counted."""

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
                call.status = call.status or 499  # the caller has gone

        return counted


def _size(headers: Any) -> int:
    """As on the wire: name, colon, space, value, line end."""
    return sum(len(name) + len(content) + 4 for name, content in headers)
