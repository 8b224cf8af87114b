"""The link as the response network uses it: every connection is opened here, by HTTP, signed and checked both ways."""

import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from uuid import UUID

import httpx
import orjson

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
from exchange.wire.batch import MAX_WIRE_BYTES, MEDIA_TYPE, from_bundle
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.messages import EpochOrder, Heartbeat, Receipt, SignedMessage
from models.errors import NotFound, describe
from models.streams import Network, StreamName

Message = TypeVar("Message", bound=SignedMessage)

POLL_SECONDS = 25.0
"""How long the other side may hold a poll that finds nothing."""

MAX_RETRY_AFTER = 600.0


class LinkClient:
    """Calls the request network's link endpoints. Close it with `aclose`."""

    def __init__(self, url: str, signer: HttpSigner, timeout: float = 30.0, tls: ssl.SSLContext | None = None) -> None:
        self._url = url.rstrip("/")
        self._signer = signer
        self._timeout = timeout
        self._tls = tls
        self._http = self._connections()

    async def aclose(self) -> None:
        await self._http.aclose()

    def _connections(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url,
            timeout=httpx.Timeout(self._timeout, connect=5.0),
            limits=httpx.Limits(max_connections=20, max_keepalive_connections=10, keepalive_expiry=60),
            follow_redirects=False,
            trust_env=False,
            verify=self._tls or True,
        )

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

    async def pull(
        self,
        stream: StreamName,
        after: int,
        wait: float = POLL_SECONDS,
        most: int = 1,
        epoch: int | None = None,
        head: bytes | None = None,
    ) -> list[bytes]:
        """Up to ``most`` sealed batches that follow ``after``; empty when none came within ``wait`` seconds.

        With the ``epoch`` that is counted in and the hash of that batch, a sender with another history says so (`Fork`)
        although it may have nothing new.
        """
        target = f"/link/v1/streams/{stream}/batches?after={after}&wait={wait:g}&most={most}"
        if epoch is not None:
            target += f"&epoch={epoch}"
        if head is not None:
            target += f"&head={head.hex()}"
        return from_bundle(await self._call("GET", target, timeout=wait + self._timeout))

    async def send_receipt(self, stream: StreamName, receipt: Receipt) -> None:
        """Tell the sender what is stored here, so that it may mark it delivered."""
        wire = receipt.to_wire(self._signer.keys)
        await self._call("POST", f"/link/v1/streams/{stream}/receipts", wire, Receipt.media_type)

    async def state(self, stream: StreamName) -> Receipt:
        """Where a pushed stream stands on the other side."""
        return self._receipt(stream, await self._call("GET", f"/link/v1/streams/{stream}"))

    async def ask(self, stream: StreamName, question: bytes) -> bytes:
        """Ask how a stream looks on the other side; question and answer as in `exchange.audit.summaries`."""
        return await self._call("POST", f"/link/v1/streams/{stream}/summaries", question, "application/json")

    async def order_repair(self, stream: StreamName, order: bytes) -> bytes:
        """Have rows on the other side made what their batch says."""
        return await self._call("POST", f"/link/v1/streams/{stream}/repairs", order, "application/json")

    async def restore(self, stream: StreamName, wire: bytes) -> bytes:
        """Send a batch that was delivered once more, in the place of what the other side has of it."""
        return await self._call("POST", f"/link/v1/streams/{stream}/restorations", wire, MEDIA_TYPE)

    async def received(self, stream: StreamName, epoch: int, sequence: int) -> bytes:
        """The original bytes of a batch that the other side has stored, whichever of us sealed it; not verified yet.

        Raises `NotFound` where the batch or its payload is not there any more.
        """
        wire = await self._call("GET", f"/link/v1/streams/{stream}/batches/{epoch}/{sequence}")
        if not wire:
            raise NotFound(f"the request network does not have the bytes of batch {epoch}.{sequence} of {stream}")
        return wire

    async def order_epoch(self, stream: StreamName, order: EpochOrder) -> Receipt | Heartbeat:
        """Have the other end of a stream begin a new epoch; the answer says where it stands then."""
        wire = order.to_wire(self._signer.keys)
        body = await self._call("POST", f"/link/v1/streams/{stream}/epochs", wire, EpochOrder.media_type)
        if stream.sender is Network.RESPONSE:
            return self._receipt(stream, body)
        return self._own(stream, Heartbeat.from_wire(self._signer.keys, body))

    async def give_back(self, stream: StreamName, wire: bytes) -> None:
        """Give the sender of a batch its own bytes back, which it has lost; its next epoch takes their records in."""
        await self._call("POST", f"/link/v1/streams/{stream}/recoveries", wire, MEDIA_TYPE)

    async def exchange_keys(self, ours: bytes) -> bytes:
        """Tell this network's keys; the answer tells the other's. See `exchange.link_keys.lists`."""
        return await self._call("POST", "/link/v1/keys", ours, "application/vnd.airlock.keys")

    async def trace(self, request_id: UUID) -> bytes:
        """What the request network knows of one request's way."""
        return await self._call("GET", f"/link/v1/traces/{request_id}")

    def _receipt(self, stream: StreamName, body: bytes) -> Receipt:
        return self._own(stream, Receipt.from_wire(self._signer.keys, body))

    def _own(self, stream: StreamName, message: Message) -> Message:
        if message.stream is not stream or message.link != self._signer.link_id:
            raise Malformed(f"a {message.purpose} for {message.link}/{message.stream} came for {stream}")
        return message

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
        except (httpx.HTTPError, ssl.SSLError) as error:  # a refused certificate shows up when the answer is read
            raise LinkUnavailable(f"{method} {target}: {describe(error)}") from error
        if response.status_code in (401, 403):
            raise _paused(content)
        if response.status_code in (429, 503):
            detail = f"status {response.status_code} from the request network: {_detail(content)}"
            raise LinkUnavailable(detail, _retry_after(response))
        if response.status_code == 413:  # a proxy on the way may say so as well, unsigned: it only makes us wait
            raise Oversize(_detail(content))
        if response.status_code >= 500:
            raise LinkUnavailable(f"{method} {target}: status {response.status_code} from the request network")
        await self._signer.know(response.headers.get(HEADER, ""))
        try:
            self._signer.verify_response(response.headers.get(HEADER, ""), signature, response.status_code, content)
        except LinkError:
            # An answer too many on a connection shifts all that follow by one: none of them would ever fit again.
            doubtful, self._http = self._http, self._connections()
            await doubtful.aclose()
            raise
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


def _paused(content: bytes) -> LinkPaused:
    """A refusal, and what it says of its cause. It is not signed: it only makes us wait, and tells an operator where to
    look. ``clock_ahead`` in seconds, of the other side's clock.
    """
    problem = _problem(content)
    theirs = problem.get("server_time")
    return LinkPaused(
        f"the request network refuses our signature: {_detail(content)}",
        refusal=str(problem.get("type", "")).rpartition(":")[2],
        clock_ahead=theirs - datetime.now(UTC).timestamp() if isinstance(theirs, int | float) else None,
    )


def _problem(content: bytes) -> dict[str, object]:
    try:
        loaded = orjson.loads(content)  # which, unlike json, refuses deep nesting with a ValueError
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _detail(content: bytes) -> str:
    return str(_problem(content).get("detail", "no reason given"))[:500]


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, given in seconds or as a date (RFC 9110, 10.2.3). These answers are not signed:
    nobody may hold the link up for longer than `MAX_RETRY_AFTER`.
    """
    given = response.headers.get("Retry-After", "")
    try:
        if given.isascii() and given.isdigit():
            seconds = float(given)
        else:
            seconds = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER)
