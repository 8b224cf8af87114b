"""The HTTP client of the link. The response network opens every connection; requests and answers are signed."""

import asyncio
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar
from uuid import UUID

import httpx
import orjson

from configuration.settings import ResponseSettings
from exchange.errors import Fork, Gap, LinkError, LinkPaused, LinkUnavailable, Malformed, Oversize, StreamStopped
from exchange.wire.batch import MAX_WIRE_BYTES, MEDIA_TYPE, from_bundle
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.messages import EpochOrder, Heartbeat, Receipt, Signed, SignedMessage
from models.errors import ConfigurationError, NotFound, describe
from models.foreign_text import cleaned
from models.streams import Network, StreamName

Message = TypeVar("Message", bound=SignedMessage)
AnySigned = TypeVar("AnySigned", bound=Signed)

POLL_SECONDS = 25.0
"""How long the other side may hold a poll before it answers that nothing is new."""

TRANSFER_SECONDS = 1800.0
"""How long a batch may take to cross. httpx bounds only the time between two bytes, which the other side chooses."""

LAST_SECOND = 253_402_300_800
"""Unix time of the end of the year 9999: a clock that says more is no clock."""

MAX_RETRY_AFTER = 600.0
"""Seconds that an answer may ask us to wait at most: such answers are not signed."""


class LinkClient:
    """Calls the request network's link endpoints. Every call raises `LinkError`. Close the client with `aclose`."""

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
        """Send a sealed batch. The receipt says that it is stored there.

        Raises `Gap`, `Fork`, `StreamStopped`, `Oversize`, `LinkPaused` or `LinkUnavailable`.
        """
        body = await self._call("POST", f"/link/v1/streams/{stream}/batches", wire, MEDIA_TYPE)
        return self._receipt(stream, body)

    async def heartbeat(self, stream: StreamName, heartbeat: Heartbeat) -> Receipt:
        """Report that nothing is new."""
        wire = heartbeat.to_wire(self._signer.keys)
        body = await self._call("POST", f"/link/v1/streams/{stream}/heartbeats", wire, Heartbeat.media_type)
        return self._receipt(stream, body)

    async def pull(
        self,
        stream: StreamName,
        after: int,
        wait: float,
        most: int = 1,
        epoch: int | None = None,
        head: bytes | None = None,
    ) -> list[bytes]:
        """Wait up to ``wait`` seconds for the batches after number ``after``, ``most`` of them at most.

        With our ``epoch`` and ``head``, the hash of batch ``after``, the sender raises `Fork` if its history differs.
        """
        target = f"/link/v1/streams/{stream}/batches?after={after}&wait={wait:g}"
        if epoch is not None:
            target += f"&epoch={epoch}"
        if head is not None:
            target += f"&head={head.hex()}"
        return from_bundle(await self._call("GET", f"{target}&most={most}", timeout=wait + self._timeout), most)

    async def send_receipt(self, stream: StreamName, receipt: Receipt) -> None:
        """Tell the sender which batches are stored here, so that it marks them delivered."""
        wire = receipt.to_wire(self._signer.keys)
        await self._call("POST", f"/link/v1/streams/{stream}/receipts", wire, Receipt.media_type)

    async def state(self, stream: StreamName) -> Receipt:
        """The position of a pushed stream on the other side."""
        return self._receipt(stream, await self._call("GET", f"/link/v1/streams/{stream}"))

    async def ask(self, stream: StreamName, question: bytes) -> bytes:
        """Ask about a stream on the other side. `exchange.audit.summaries` defines questions and answers."""
        return await self._call("POST", f"/link/v1/streams/{stream}/summaries", question, "application/json")

    async def order_repair(self, stream: StreamName, order: bytes) -> bytes:
        """Order the other side to rebuild the rows of a batch."""
        return await self._call("POST", f"/link/v1/streams/{stream}/repairs", order, "application/json")

    async def restore(self, stream: StreamName, wire: bytes) -> bytes:
        """Send a delivered batch again, to replace the other side's copy."""
        return await self._call("POST", f"/link/v1/streams/{stream}/restorations", wire, MEDIA_TYPE)

    async def received(self, stream: StreamName, epoch: int, sequence: int) -> bytes:
        """The bytes of a batch that the other side sealed or received. They are not verified yet.

        Raises `NotFound` if the batch or its payload is no longer stored there.
        """
        wire = await self._call("GET", f"/link/v1/streams/{stream}/batches/{epoch}/{sequence}")
        if not wire:
            raise NotFound(f"the request network does not have the bytes of batch {epoch}.{sequence} of {stream}")
        return wire

    async def order_epoch(self, stream: StreamName, order: EpochOrder) -> Receipt | Heartbeat:
        """Order the other end of a stream to begin a new epoch. Returns its new position."""
        order = order.model_copy(update={"issued_at": datetime.now(UTC)})  # giving back may have taken long
        wire = order.to_wire(self._signer.keys)
        body = await self._call("POST", f"/link/v1/streams/{stream}/epochs", wire, EpochOrder.media_type)
        if stream.sender is Network.RESPONSE:
            return self._receipt(stream, body)
        return self._own(stream, self._signer.opened(Heartbeat, body))

    async def give_back(self, stream: StreamName, wire: bytes) -> None:
        """Return a batch to its sender, which has lost it. The sender puts its records into its next epoch."""
        await self._call("POST", f"/link/v1/streams/{stream}/recoveries", wire, MEDIA_TYPE)

    async def exchange_keys(self, ours: bytes) -> bytes:
        """Send this network's key list and return the other's. See `exchange.link_keys.lists`."""
        return await self._call("POST", "/link/v1/keys", ours, "application/vnd.airlock.keys")

    def opened(self, kind: type[AnySigned], wire: bytes) -> AnySigned:
        """A signed message that came as an answer, verified. Raises `LinkError`."""
        return self._signer.opened(kind, wire)

    async def trace(self, request_id: UUID) -> bytes:
        """The request network's trace of one request."""
        return await self._call("GET", f"/link/v1/traces/{request_id}")

    def _receipt(self, stream: StreamName, body: bytes) -> Receipt:
        return self._own(stream, self._signer.opened(Receipt, body))

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
            async with (
                asyncio.timeout(TRANSFER_SECONDS + (timeout or self._timeout)),
                self._http.stream(
                    method, target, content=body, headers=headers, timeout=timeout or self._timeout
                ) as response,
            ):
                content = await _read(response)
        # ssl reports a refused certificate only when the answer is read
        except (httpx.HTTPError, ssl.SSLError, TimeoutError) as error:
            raise LinkUnavailable(f"{method} {target}: {describe(error)}") from error
        if response.status_code in (401, 403):
            raise _paused(content)
        if response.status_code in (429, 503):
            detail = f"status {response.status_code} from the request network: {_detail(content)}"
            raise LinkUnavailable(detail, _retry_after(response))
        if response.status_code == 413:  # perhaps a proxy's answer, unsigned: it only delays the batch
            raise Oversize(_detail(content))
        if response.status_code >= 500:
            raise LinkUnavailable(f"{method} {target}: status {response.status_code} from the request network")
        await self._signer.know(response.headers.get(HEADER, ""))
        try:
            self._signer.verify_response(response.headers.get(HEADER, ""), signature, response.status_code, content)
        except LinkError:
            # After one extra answer on a connection, every later answer belongs to the request before.
            previous, self._http = self._http, self._connections()
            await previous.aclose()
            raise
        if response.status_code in (200, 204):
            return content
        raise _refusal(response.status_code, content)


def client_tls(settings: ResponseSettings) -> ssl.SSLContext | None:
    """TLS 1.3 with the certificates of the settings; None, for the public authorities, where none is set.

    Raises `ConfigurationError` that names the variable whose file cannot be used.
    """
    if settings.link_ca is None and settings.link_certificate is None:
        return None
    variable, file = "AIRLOCK_RESPONSE_LINK_CA", settings.link_ca
    try:
        context = ssl.create_default_context(cafile=file)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        if settings.link_certificate is not None and settings.link_certificate_key is not None:
            variable, file = "AIRLOCK_RESPONSE_LINK_CERTIFICATE", settings.link_certificate
            context.load_cert_chain(settings.link_certificate, settings.link_certificate_key)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigurationError(f"{variable}: {file} cannot be used: {error}") from None
    return context


async def _read(response: httpx.Response) -> bytes:
    """Read the body. Raises `Oversize` beyond the size of a batch."""
    content = bytearray()
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > MAX_WIRE_BYTES:
            raise Oversize(f"the answer has more than {MAX_WIRE_BYTES} bytes")
    return bytes(content)


def _refusal(status: int, content: bytes) -> LinkError:
    """The error for a signed refusal."""
    problem = _problem(content)
    detail = cleaned(str(problem.get("detail", f"status {status}")))
    expected = problem.get("expected")
    extra = {"expected": expected} if isinstance(expected, int) and not isinstance(expected, bool) else {}
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
    """The error for a refused signature. The answer is not signed: it only pauses the link and names a probable cause.

    ``clock_ahead``: seconds by which the other side's clock is ahead.
    """
    problem = _problem(content)
    theirs = problem.get("server_time")
    known = isinstance(theirs, int | float) and not isinstance(theirs, bool) and 0 <= theirs < LAST_SECOND
    return LinkPaused(
        f"the request network refuses our signature: {_detail(content)}",
        refusal=cleaned(str(problem.get("type", "")).rpartition(":")[2], 64),
        clock_ahead=float(str(theirs)) - datetime.now(UTC).timestamp() if known else None,
    )


def _problem(content: bytes) -> dict[str, object]:
    try:
        loaded = orjson.loads(content)  # unlike json, it raises a ValueError for deep nesting
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}


def _detail(content: bytes) -> str:
    return cleaned(str(_problem(content).get("detail", "no reason given")), 500)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, 10.2.3)."""
    given = response.headers.get("Retry-After", "")
    try:
        if given.isascii() and given.isdigit():
            seconds = float(given)
        else:
            seconds = (parsedate_to_datetime(given) - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return min(max(0.0, seconds), MAX_RETRY_AFTER)
