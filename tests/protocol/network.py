"""The network between: a transport for the real `LinkClient` that brings each call to the request network's real link
routes, unless it drops, doubles, delays, cuts or changes it.
"""

from collections import deque
from collections.abc import Sequence
from enum import StrEnum

import httpx
from fastapi import FastAPI

from exchange.carriers.http import LinkClient
from exchange.wire.http_signature import HttpSigner
from models.streams import Network
from tests.protocol.clocks import Clocks

REMEMBERED = 12
"""Calls that are kept, to come again later."""


class Fault(StrEnum):
    """What happens to one call."""

    NONE = "none"
    DROP_QUESTION = "drop question"
    DROP_ANSWER = "drop answer"
    TWICE = "twice"
    DELAY = "delay"
    CUT_QUESTION = "cut question"
    CHANGE_QUESTION = "change question"
    CUT_ANSWER = "cut answer"
    CHANGE_ANSWER = "change answer"
    CHANGE_STATUS = "change status"
    OLD_ANSWER = "old answer"
    BUSY = "busy"


class Call:
    """One call as bytes: what can be kept and brought again."""

    def __init__(self, request: httpx.Request, body: bytes) -> None:
        self.method, self.url, self.headers, self.body = request.method, request.url, request.headers, body

    def request(self, body: bytes | None = None) -> httpx.Request:
        content = self.body if body is None else body
        headers = {key: value for key, value in self.headers.items() if key.lower() != "content-length"}
        return httpx.Request(self.method, self.url, headers=headers, content=content)


class SimulatedNetwork(httpx.AsyncBaseTransport):
    """Brings calls to an app in this process. Faults are planned per call, in the order of the calls."""

    def __init__(self, app: FastAPI, clocks: Clocks) -> None:
        self._app = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._clocks = clocks
        self._plan: deque[Fault] = deque()
        self._answers: deque[tuple[int, httpx.Headers, bytes]] = deque(maxlen=REMEMBERED)
        self.delayed: list[Call] = []
        self.past: deque[Call] = deque(maxlen=REMEMBERED)
        self.remembers = True
        """Whether calls may come again; not those that only a test could make."""
        self.broken: list[str] = []
        """Answers that say that something broke on the other side."""
        self.faults = 0
        """Faults that happened since `plan`."""

    def plan(self, faults: Sequence[Fault]) -> None:
        """What happens to the next calls; those after them pass."""
        self._plan = deque(faults)
        self.faults = 0

    def forget(self) -> None:
        """Nothing is on its way, nothing is kept."""
        self.plan([])
        self._answers.clear()
        self.delayed.clear()
        self.past.clear()
        self.broken.clear()

    async def bring(self, call: Call, body: bytes | None = None) -> tuple[int, httpx.Headers, bytes]:
        """Bring a call to the other side, whatever became of its caller."""
        with self._clocks.of(Network.REQUEST):
            answer = await self._app.handle_async_request(call.request(body))
            content = await answer.aread()
        if answer.status_code >= 500:
            self.broken.append(f"{call.method} {call.url.path}: {answer.status_code} {content[:300]!r}")
        return answer.status_code, answer.headers, content

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        call = Call(request, await request.aread())
        fault = self._plan.popleft() if self._plan else Fault.NONE
        self.faults += fault is not Fault.NONE
        return await self._carry(call, fault, request)

    async def _carry(self, call: Call, fault: Fault, request: httpx.Request) -> httpx.Response:
        if fault is Fault.DROP_QUESTION:
            raise httpx.ConnectError("the question is lost", request=request)
        if fault is Fault.DELAY:
            self.delayed.append(call)
            raise httpx.ReadTimeout("the question is late", request=request)
        if fault is Fault.BUSY:
            return httpx.Response(429, headers={"Retry-After": "1"}, stream=httpx.ByteStream(b"{}"), request=request)
        if fault is Fault.TWICE:
            await self.bring(call)
        changed = _damaged(call.body, fault, Fault.CUT_QUESTION, Fault.CHANGE_QUESTION)
        earlier = list(self._answers)
        status, headers, content = await self.bring(call, changed)
        if self.remembers:
            self.past.append(call)
        self._answers.append((status, headers, content))
        if fault is Fault.DROP_ANSWER:
            raise httpx.ReadTimeout("the answer is lost", request=request)
        if fault is Fault.OLD_ANSWER and earlier:
            status, headers, content = earlier[0]
        if fault is Fault.CHANGE_STATUS:
            status = 422 if status < 300 else 200
        content = _damaged(content, fault, Fault.CUT_ANSWER, Fault.CHANGE_ANSWER)
        kept = {key: value for key, value in headers.items() if key.lower() != "content-length"}
        return httpx.Response(status, headers=kept, stream=httpx.ByteStream(content), request=request)


class SimulatedLink(LinkClient):
    """The real client, whose connections end in the simulated network."""

    def __init__(self, network: SimulatedNetwork, signer: HttpSigner) -> None:
        self._network = network
        super().__init__("http://request", signer, timeout=30.0)

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(base_url="http://request", transport=self._network)


def _damaged(content: bytes, fault: Fault, cut: Fault, change: Fault) -> bytes:
    """Half of it, or all of it with a bit flipped in the middle; something where there was nothing."""
    if fault is cut:
        return content[: len(content) // 2] if content else b"x"
    if fault is change:
        middle = len(content) // 2
        return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else b"x"
    return content
