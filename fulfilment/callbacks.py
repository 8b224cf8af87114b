"""Calling back the owners of finished requests, as Standard Webhooks ask."""

import asyncio
import base64
import ipaddress
import socket
import time
from dataclasses import dataclass
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.wire.keys import LinkKeys
from fulfilment.callback_store import mark_callback, retry_callback
from models.errors import describe
from models.outcomes import CallbackOutcome
from models.results import closed_body
from storage.database import AnyRow

log = structlog.get_logger(__name__)

CALLBACK_SECONDS = 10.0
CALLBACKS_AT_ONCE = 32
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds until a callback that its receiver did not take is made again: after the first attempt, the second, and so
on; then every hour, until it is given up."""


class CallbackSender:
    """Makes one callback at a time per slot. Each is signed with this network's Ed25519 key (webhook-id,
    webhook-timestamp, webhook-signature ``v1a``).
    """

    def __init__(
        self, engine: AsyncEngine, keys: LinkKeys, allow_private: bool, give_up_seconds: float, http: httpx.AsyncClient
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._allow_private = allow_private
        self._give_up_seconds = give_up_seconds
        self._http = http
        self._slots = asyncio.Semaphore(CALLBACKS_AT_ONCE)

    async def send(self, callback: AnyRow, outcome: CallbackOutcome) -> None:
        """Make a callback as `fulfilment.callback_store.callbacks_due` gives it, record how that went, and count it."""
        async with self._slots:
            await self._send(callback, outcome)

    async def _send(self, callback: AnyRow, outcome: CallbackOutcome) -> None:
        late = callback.closed is not None  # then a result does not count, though it is here
        body = closed_body(callback.request_id, callback.closed, callback.closed_at) if late else callback.body
        target, problem = await self._target(callback.callback_url)
        if problem is None:
            failure = await self._post(target, callback.request_id, body)
            if failure is None:
                outcome.delivered += 1
                await self._mark(callback.request_id, None)
                return
            if time.time() - callback.finished_at.timestamp() < self._give_up_seconds:
                pause = RETRY_SECONDS[min(callback.callback_attempts, len(RETRY_SECONDS) - 1)]
                log.warning("callback.failed", request_id=str(callback.request_id), error=failure, again_in=pause)
                outcome.failed_attempts += 1
                async with self._engine.begin() as connection:
                    await retry_callback(connection, callback.request_id, pause)
                return
            problem = f"given up after {self._give_up_seconds:g} s: {failure}"
        log.error("callback.given_up", request_id=str(callback.request_id), reason=problem)
        outcome.given_up += 1
        await self._mark(callback.request_id, problem)

    async def _mark(self, request_id: UUID, lost: str | None) -> None:
        async with self._engine.begin() as connection:
            await mark_callback(connection, request_id, lost)

    async def _target(self, url: str) -> tuple["Target", str | None]:
        """Where to post to, and why it may not be: in the exposed network a caller must not reach what only we reach.

        The address that was looked at is the one that is called: a name may mean another one a moment later.
        """
        try:
            parsed = httpx.URL(url)
            if self._allow_private:
                return Target(parsed), None
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(parsed.raw_host.decode(), None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, httpx.InvalidURL):
            return Target(None), None
        addresses = [str(item[4][0]) for item in found]
        inside = [address for address in addresses if not _is_public(address)]
        if inside:
            return Target(None), f"{parsed.host} is not a public address ({inside[0]})"
        return Target(parsed.copy_with(host=addresses[0]), parsed.netloc.decode(), parsed.raw_host.decode()), None

    async def _post(self, target: "Target", request_id: UUID, body: bytes) -> str | None:
        """Why it failed; None when it was taken. What the receiver answers beyond its status is not read."""
        if target.url is None:
            return "its host cannot be found"
        message_id, moment = f"msg_{request_id}", str(int(time.time()))
        signature = self._keys.signing.sign(b".".join((message_id.encode(), moment.encode(), body)))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": "v1a," + base64.b64encode(signature).decode(),
        }
        extensions: dict[str, str] = {}
        if target.host:
            headers["Host"] = target.host
            extensions["sni_hostname"] = target.name
        request = self._http.build_request(
            "POST", target.url, content=body, headers=headers, timeout=CALLBACK_SECONDS, extensions=extensions
        )
        try:
            async with asyncio.timeout(CALLBACK_SECONDS):
                response = await self._http.send(request, stream=True)
                await response.aclose()
        except TimeoutError:
            return f"no answer within {CALLBACK_SECONDS:g} s"
        except (httpx.HTTPError, OSError, ValueError) as error:
            return describe(error)
        return None if response.is_success else f"status {response.status_code}"


@dataclass(frozen=True)
class Target:
    """The URL to call, by address where one was looked up; then also the Host header and the name for TLS."""

    url: httpx.URL | None
    host: str = ""
    name: str = ""


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address)
    return found.is_global and not found.is_multicast
