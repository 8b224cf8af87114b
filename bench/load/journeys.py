"""Journeys: a single call, or a request from its submission to its result."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence

from bench.load.order import Ask
from chaos.connection import Connections, as_call

Ended = Callable[[str], None]
"""Called once per journey with the problem, or an empty text."""

WAIT = 30
"""Seconds of one long poll, at most."""
AGAIN = 0.05
"""Pause before the next poll, in seconds."""
_ID = re.compile(rb'"id": ?"([0-9a-f-]{36})"')


class Journeys:
    """Starts journeys by number: every contestant gets the same calls in the same order."""

    def __init__(self, connections: Connections, asks: Sequence[Ask], headers: Mapping[str, str]) -> None:
        self._connections = connections
        self._asks = [(ask, as_call(ask.method, ask.path, ask.body, headers)) for ask in asks]
        self._headers = headers
        self._ids: set[bytes] = set()

    def start(self, number: int, ended: Ended) -> None:
        """Make a call; if the order wants a result, follow the request to it."""
        ask, call = self._asks[number % len(self._asks)]

        def answered(status: int, body: bytes) -> None:
            problem = wrong(ask.status, ask.contains, status, body)
            if problem or not ask.result:
                ended(problem)
                return
            found = _ID.search(body)
            if found is None or found[1] in self._ids:
                ended("an accepted request has no id" if found is None else "two requests have the same id")
                return
            self._ids.add(found[1])
            self._follow(f"{ask.path}/{found[1].decode()}/result?wait={WAIT}", found[1], ask.result, ended)

        self._connections.ask(call, answered)

    def _follow(self, path: str, request_id: bytes, expected: str, ended: Ended) -> None:
        call = as_call("GET", path, "", self._headers)

        def ask() -> None:
            self._connections.ask(call, answered)

        def answered(status: int, body: bytes) -> None:
            if status == 202:
                asyncio.get_running_loop().call_later(AGAIN, ask)
                return
            problem = wrong(200, expected, status, body)
            if not problem and request_id not in body:
                problem = "the result is that of another request"
            ended(problem)

        ask()


def wrong(expected: int, contains: str, status: int, body: bytes) -> str:
    """The problem with an answer, or an empty text."""
    if status == 0:
        return body.decode()
    if status != expected:
        return f"status {status} instead of {expected}"
    if contains and contains.encode() not in body:
        return f"an answer does not contain {contains}"
    return ""
