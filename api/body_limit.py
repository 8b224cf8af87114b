"""Limits on the size of request bodies and the time in which they must arrive."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.problems import error_problem, problem_response
from models.errors import TooLarge

DEFAULT_MAX_BYTES = 1024 * 1024
ARRIVE_SECONDS = 60.0
"""Time for a whole body, for example 8 MiB at 1.2 Mbit/s. It ends calls that send a byte now and then."""

DISCARD_BYTES = 32 * 1024 * 1024
DISCARD_SECONDS = 2.0
"""How much of a body that is too large is read and dropped, and for how long, so that its sender reads the answer."""


class BodyLimit:
    """Answers 413 for a body of more than ``max_bytes`` and 408 for one that takes longer than ``seconds``. ``larger``
    maps prefixes of paths to larger limits.

    FastAPI's ``max_body_size`` answers in plain text and outside of all middleware.
    """

    def __init__(
        self,
        app: ASGIApp,
        max_bytes: int = DEFAULT_MAX_BYTES,
        larger: Mapping[str, int] | None = None,
        seconds: float = ARRIVE_SECONDS,
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._seconds = seconds
        self._larger = tuple((larger or {}).items())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        if _announced(scope) > limit:
            await _discard(receive)
            await _too_large(limit)(scope, receive, send)
            return
        refusal: Response | None = None
        until = asyncio.get_running_loop().time() + self._seconds
        seen = 0
        whole = answering = False

        async def bounded_receive() -> Message:
            nonlocal refusal, seen, whole
            if whole:
                return await receive()
            try:
                async with asyncio.timeout_at(until):
                    message = await receive()
            except TimeoutError:
                refusal = _too_slow(self._seconds)
                raise _Refused from None
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if seen > limit:
                    refusal = _too_large(limit)
                    raise _Refused
            return message

        async def watched_send(message: Message) -> None:
            nonlocal answering
            if refusal is not None and not answering:
                raise _Refused  # the app answers to the cut-off body; discard that answer
            answering = True
            await send(message)

        try:
            await self._app(scope, bounded_receive, watched_send)
        except _Refused:
            if refusal is None:
                raise  # raised by an outer BodyLimit
            if not answering:
                await refusal(scope, receive, send)

    def _limit(self, path: str) -> int:
        return next((limit for prefix, limit in self._larger if path.startswith(prefix)), self._max_bytes)


class _Refused(BaseException):
    """Ends the app's work on a refused body. A BaseException, so that the app does not catch it."""


def _announced(scope: Scope) -> int:
    for name, content in scope["headers"]:
        if name == b"content-length":
            return int(content) if content.isdigit() else 0
    return 0


async def _discard(receive: Receive) -> None:
    """Read the rest of the body. A sender that is cut off in the middle would not read the answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_SECONDS):
            left = DISCARD_BYTES
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return
                left -= len(message.get("body", b""))


def _too_large(limit: int) -> Response:
    error = TooLarge(f"The body may have {limit} bytes at most; send less at a time", max_bytes=limit)
    return error_problem(error, {"Connection": "close"})


def _too_slow(seconds: float) -> Response:
    return problem_response(
        "too-slow",
        "The body did not arrive in time",
        408,
        f"The whole body must arrive within {seconds:g} s; nothing was stored",
        headers={"Connection": "close"},
    )
