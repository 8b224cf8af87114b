"""Request bodies are bounded: what is larger is refused before it is read, or as soon as it turns out to be."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import problem_response
from models.errors import TooLarge

DEFAULT_MAX_BYTES = 1024 * 1024


class BodyLimit:
    """Answers 413 for a body above ``max_bytes``. ``larger`` has other bounds for paths that begin with its keys.

    FastAPI's own ``max_body_size`` does the same, but answers in plain text and outside of all middleware.
    """

    def __init__(
        self, app: ASGIApp, max_bytes: int = DEFAULT_MAX_BYTES, larger: Mapping[str, int] | None = None
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._larger = tuple((larger or {}).items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        if _announced(scope) > limit:
            await _refuse(limit, scope, receive, send)
            return
        seen = 0
        answering = False

        async def bounded_receive() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    raise _Exceeded
            return message

        async def watched_send(message: Message) -> None:
            nonlocal answering
            if seen > limit and not answering:
                raise _Exceeded  # whatever the app made of the cut-off body is not the answer
            answering = True
            await send(message)

        try:
            await self._app(scope, bounded_receive, watched_send)
        except _Exceeded:
            if not answering:
                await _refuse(limit, scope, receive, send)

    def _limit(self, path: str) -> int:
        return next((limit for prefix, limit in self._larger if path.startswith(prefix)), self._max_bytes)


class _Exceeded(BaseException):
    """Passes through every ``except Exception`` of the app on its way back here."""


def _announced(scope: Scope) -> int:
    for name, content in scope["headers"]:
        if name == b"content-length":
            return int(content) if content.isdigit() else 0
    return 0


async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    response = problem_response(
        TooLarge.kind,
        TooLarge.title,
        TooLarge.status,
        f"A body here has {limit} bytes at most; send less at a time",
        {"max_bytes": limit},
        {"Connection": "close"},
    )
    await response(scope, receive, send)
