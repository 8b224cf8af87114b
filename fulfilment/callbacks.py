"""Callbacks to the owners of finished requests, in the form of Standard Webhooks."""

import asyncio
import base64
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.wire.keys import LinkKeys
from fulfilment.public_addresses import is_public
from models.errors import describe
from models.outcomes import CallbackOutcome
from models.results import closed_body
from storage.database import AnyRow, execute, rows

log = structlog.get_logger(__name__)

CALLBACK_SECONDS = 10.0
CALLBACKS_AT_ONCE = 32
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds from a failed attempt to the next one: after the first attempt, after the second, and so on; then every hour
until the callback is given up."""


async def callbacks_due(connection: AsyncConnection, limit: int) -> Sequence[AnyRow]:
    """Finished requests whose callback is due, oldest first: request_id, callback_url, closed, closed_at, body,
    finished_at, callback_attempts.
    """
    return await rows(
        connection,
        """
        SELECT requests.request_id, callback_url, closed, closed_at, results.body,
               coalesce(closed_at, received_at) AS finished_at, callback_attempts
        FROM requests LEFT JOIN results USING (request_id)
        WHERE callback_url IS NOT NULL AND callback_at IS NULL
          AND (callback_after IS NULL OR callback_after <= now())
          AND (closed IS NOT NULL OR results.request_id IS NOT NULL)
        ORDER BY requests.request_id LIMIT :limit
        """,
        limit=limit,
    )


class CallbackSender:
    """Makes up to `CALLBACKS_AT_ONCE` callbacks at once. Each is signed with this network's Ed25519 key (webhook-id,
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
        """Make one callback, a row of `callbacks_due`. Record its outcome in the database and count it."""
        async with self._slots:
            await self._send(callback, outcome)

    async def _send(self, callback: AnyRow, outcome: CallbackOutcome) -> None:
        closed = callback.closed is not None  # a result that came later does not count
        body = closed_body(callback.request_id, callback.closed, callback.closed_at) if closed else callback.body
        target, problem = await self._target(callback.callback_url)
        if problem is None:
            failure = await self._post(target, callback.request_id, body)
            if failure is None:
                outcome.delivered += 1
                await self._finish(callback.request_id, None)
                return
            if time.time() - callback.finished_at.timestamp() < self._give_up_seconds:
                pause = RETRY_SECONDS[min(callback.callback_attempts, len(RETRY_SECONDS) - 1)]
                log.warning("callback.failed", request_id=str(callback.request_id), error=failure, again_in=pause)
                outcome.failed_attempts += 1
                await self._try_again_in(pause, callback.request_id)
                return
            problem = f"given up after {self._give_up_seconds:g} s: {failure}"
        log.error("callback.given_up", request_id=str(callback.request_id), reason=problem)
        outcome.given_up += 1
        await self._finish(callback.request_id, problem)

    async def _finish(self, request_id: UUID, lost: str | None) -> None:
        """Record that the callback was delivered, or given up for the reason ``lost``."""
        async with self._engine.begin() as connection:
            await execute(
                connection,
                "UPDATE requests SET callback_at = now(), callback_lost = :lost WHERE request_id = :request_id",
                request_id=request_id,
                lost=lost,
            )

    async def _try_again_in(self, seconds: float, request_id: UUID) -> None:
        async with self._engine.begin() as connection:
            await execute(
                connection,
                "UPDATE requests SET callback_attempts = callback_attempts + 1,"
                " callback_after = now() + make_interval(secs => :seconds) WHERE request_id = :request_id",
                request_id=request_id,
                seconds=seconds,
            )

    async def _target(self, url: str) -> tuple["Target", str | None]:
        """The address to post to, or the reason why it is refused: a callback must not reach a private address.

        The checked address is the one that is called, since the name may resolve to another one a moment later.
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
        inside = [address for address in addresses if not is_public(address)]
        if inside:
            log.warning("callback.not_public", host=parsed.host, address=inside[0])
            return Target(None), f"{parsed.host} is not a public address"  # which one it is stays here
        return Target(parsed.copy_with(host=addresses[0]), parsed.netloc.decode(), parsed.raw_host.decode()), None

    async def _post(self, target: "Target", request_id: UUID, body: bytes) -> str | None:
        """Post the result. Return the reason of a failure, or None. Only the status of the answer is read."""
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
            # The owner reads the reason: no addresses, and nothing that a server inside said.
            log.debug("callback.error", request_id=str(request_id), error=describe(error))
            return _WORDS.get(type(error), "its host cannot be reached")
        return None if response.is_success else f"status {response.status_code}"


_WORDS: dict[type[Exception], str] = {
    httpx.ConnectTimeout: f"no answer within {CALLBACK_SECONDS:g} s",
    httpx.ReadTimeout: f"no answer within {CALLBACK_SECONDS:g} s",
    httpx.RemoteProtocolError: "its answer is not HTTP, or was cut off",
    httpx.ReadError: "the connection broke",
    httpx.WriteError: "the connection broke",
}


@dataclass(frozen=True)
class Target:
    """The URL to call. If its host was resolved, ``url`` holds the address; ``host`` and ``name`` hold the name."""

    url: httpx.URL | None
    host: str = ""
    name: str = ""
