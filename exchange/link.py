"""The link as the response network uses it: every connection is opened here, by HTTP, signed and checked both ways."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from exchange.batch import MAX_WIRE_BYTES, MEDIA_TYPE
from exchange.errors import (
    Fork,
    Gap,
    LinkError,
    LinkPaused,
    LinkUnavailable,
    Malformed,
    Oversize,
    StreamStopped,
)
from exchange.http_signature import HEADER, HttpSigner
from exchange.notes import Heartbeat, Receipt
from models.streams import StreamName

POLL_SECONDS = 25.0
"""How long the other side may hold a poll that finds nothing."""


class LinkClient:
    """Calls the request network's link endpoints. Close it with `aclose`."""

    def __init__(self, url: str, signer: HttpSigner, timeout: float = 30.0) -> None:
        self._signer = signer
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"),
            timeout=httpx.Timeout(timeout, connect=5.0),
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=60),
            follow_redirects=False,
            trust_env=False,
        )
        self._timeout = timeout

    async def aclose(self) -> None:
        await self._http.aclose()

    async def push(self, stream: StreamName, wire: bytes) -> Receipt:
        """Offer a sealed batch; the receipt says that it is stored there.

        Raises `Gap`, `Fork`, `StreamStopped`, `Oversize`, `LinkPaused` or `LinkUnavailable`.
        """
        body = await self._call("POST", f"/link/v1/streams/{stream}/batches", wire, MEDIA_TYPE)
        return self._receipt(stream, body)

    async def heartbeat(self, stream: StreamName, heartbeat: Heartbeat) -> Receipt:
        """Say that there is nothing new."""
        wire = heartbeat.to_wire(self._signer.keys)
        body = await self._call("POST", f"/link/v1/streams/{stream}/heartbeats", wire, Heartbeat.media_type)
        return self._receipt(stream, body)

    async def pull(self, stream: StreamName, after: int, wait: float = POLL_SECONDS) -> bytes | None:
        """The sealed batch that follows ``after``, waiting for one for up to ``wait`` seconds; None when none came."""
        target = f"/link/v1/streams/{stream}/batches?after={after}&wait={wait:g}"
        return await self._call("GET", target, timeout=wait + self._timeout) or None

    async def send_receipt(self, stream: StreamName, receipt: Receipt) -> None:
        """Tell the sender what is stored here, so that it may mark it delivered."""
        wire = receipt.to_wire(self._signer.keys)
        await self._call("POST", f"/link/v1/streams/{stream}/receipts", wire, Receipt.media_type)

    async def state(self, stream: StreamName) -> Receipt:
        """Where a pushed stream stands on the other side."""
        return self._receipt(stream, await self._call("GET", f"/link/v1/streams/{stream}"))

    def _receipt(self, stream: StreamName, body: bytes) -> Receipt:
        receipt = Receipt.from_wire(self._signer.keys, body)
        if receipt.stream is not stream or receipt.link != self._signer.link_id:
            raise Malformed(f"a receipt for {receipt.link}/{receipt.stream} came for {stream}")
        return receipt

    async def _call(
        self, method: str, target: str, body: bytes = b"", media_type: str = "", timeout: float | None = None
    ) -> bytes:
        signature = self._signer.sign_request(method, target, body)
        headers = {HEADER: signature} | ({"Content-Type": media_type} if media_type else {})
        try:
            async with self._http.stream(
                method, target, content=body, headers=headers, timeout=timeout or self._timeout
            ) as response:
                content = await _read(response)
        except httpx.HTTPError as error:
            raise LinkUnavailable(f"{method} {target}: {error or type(error).__name__}") from error
        if response.status_code in (401, 403):
            raise LinkPaused(f"the request network refuses our signature: {_detail(content)}")
        if response.status_code in (429, 503):
            raise LinkUnavailable(_detail(content), _retry_after(response))
        if response.status_code >= 500:
            raise LinkUnavailable(f"{method} {target}: status {response.status_code} from the request network")
        self._signer.verify_response(response.headers.get(HEADER, ""), signature, response.status_code, content)
        if response.status_code in (200, 204):
            return content
        raise _refusal(response.status_code, content)


async def _read(response: httpx.Response) -> bytes:
    """The whole body, but never more than a batch may have."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_WIRE_BYTES:
            raise Oversize(f"the answer has more than {MAX_WIRE_BYTES} bytes")
    return bytes(content)


def _refusal(status: int, content: bytes) -> LinkError:
    """The error that a signed refusal stands for."""
    problem = _problem(content)
    detail = str(problem.get("detail", f"status {status}"))
    expected = problem.get("expected")
    extra = {"expected": expected} if isinstance(expected, int) else {}
    if status == 409 and extra:
        return Gap(detail, **extra)
    if status == 422:
        return Fork(detail, **extra)
    if status == 423:
        return StreamStopped(detail)
    if status == 413:
        return Oversize(detail)
    return Malformed(f"the request network answered {status}: {detail}")


def _problem(content: bytes) -> dict[str, object]:
    try:
        loaded = json.loads(content)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _detail(content: bytes) -> str:
    return str(_problem(content).get("detail", "no reason given"))[:500]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, given in seconds or as a date (RFC 9110, 10.2.3)."""
    given = response.headers.get("Retry-After", "")
    if given.isdigit():
        return float(given)
    try:
        return max(0.0, (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
