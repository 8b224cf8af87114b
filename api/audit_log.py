"""Who was refused, and what operators did, in the log. Keys appear as the first digits of their SHA-256 only."""

import hashlib
import re
import time

import structlog
from fastapi import Request

from api.bearer import credentials
from exchange.wire.http_signature import HEADER

log = structlog.get_logger("audit")

LINES = 20
"""Refusals logged in one `WINDOW_SECONDS`; the others are counted. A flood of calls must not fill the disk."""
WINDOW_SECONDS = 60.0
_LINK_KEY = re.compile(r"key=([0-9a-f]{16});")


class RefusalLog:
    """Logs refused calls: each kind of call of a caller once in `WINDOW_SECONDS`, and at most `LINES` in all. A later
    line says how many were left out.
    """

    def __init__(self) -> None:
        self._since, self._left_out = 0.0, 0
        self._seen: set[tuple[str, ...]] = set()

    def record(self, request: Request, status: int, kind: str) -> None:
        """Log one refusal: who called from where, what for, and why it was refused."""
        now = time.monotonic()
        if now - self._since >= WINDOW_SECONDS:
            self._since = now
            self._seen.clear()
        caller, call = who(request), what(request)
        same = (kind, *caller.values(), *call.values())
        if same in self._seen or len(self._seen) >= LINES:
            self._left_out += 1
            return
        self._seen.add(same)
        more = {"left_out_before": self._left_out} if self._left_out else {}
        self._left_out = 0
        log.info("audit.refused", **caller, **call, status=status, reason=kind, **more)


def who(request: Request) -> dict[str, str]:
    """The caller: name and id if known, the address, and which key was shown."""
    found: dict[str, str] = dict(getattr(request.state, "caller", {}))
    if request.client is not None:
        found["address"] = request.client.host
    _, key = credentials(request)
    if key:
        found["key"] = hashlib.sha256(key.encode()).hexdigest()[:8]
    if named := _LINK_KEY.match(request.headers.get(HEADER, "")):
        found["link_key"] = named[1]
    return found


def what(request: Request) -> dict[str, str]:
    """Method and path, without the query, which may hold anything."""
    return {"method": request.method, "path": request.url.path[:200]}


def record_action(request: Request, status: int) -> None:
    """Log what an operator did, and its outcome."""
    log.info("audit.action", **who(request), **what(request), status=status)
