"""Callbacks to the owners of finished requests, in the form of Standard Webhooks."""

import asyncio
import base64
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from uuid import UUID

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.wire.keys import LinkKeys
from fulfilment.callback_store import (
    DueCallback,
    find_callback,
    finish_callback,
    put_off_host,
    try_callback_again,
)
from fulfilment.name_lookups import NameLookups
from fulfilment.public_addresses import is_public
from models.errors import describe
from models.outcomes import CallbackOutcome
from models.results import closed_body

log = structlog.get_logger(__name__)

CALLBACK_SECONDS = 10.0
RETRY_SECONDS = (1.0, 5.0, 30.0, 120.0, 600.0, 3600.0)
"""Seconds from a failed attempt to the next one: after the first attempt, after the second, and so on; then every hour
until the callback is given up."""
SILENT_ATTEMPTS = 3
"""After this many attempts without any answer in a row, all callbacks to the host are put off."""
PUT_OFF_SECONDS = (30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0)
MAX_RETRY_AFTER = 86_400.0
MAX_ADDRESSES = 3
GONE = 410


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed. ``silent``: nobody answered. ``wait``: the seconds that the receiver asked for."""

    reason: str
    silent: bool = False
    gone: bool = False
    wait: float = 0.0


class CallbackSender:
    """Makes callbacks. Each is signed with this network's Ed25519 key (webhook-id, webhook-timestamp, webhook-signature
    ``v1a``). A host that does not answer is put off with all its callbacks, so that it does not take others' places.
    """

    def __init__(
        self, engine: AsyncEngine, keys: LinkKeys, allow_private: bool, give_up_seconds: float, http: httpx.AsyncClient
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._allow_private = allow_private
        self._give_up_seconds = give_up_seconds
        self._http = http
        self._lookups = NameLookups()
        self._silent: dict[str, int] = {}
        """Attempts in a row without an answer, by host. Only of hosts that did not answer."""

    def close(self) -> None:
        self._lookups.close()

    async def send(self, due: DueCallback, outcome: CallbackOutcome) -> None:
        """Make one callback. Record its outcome in the database and count it."""
        async with self._engine.connect() as connection:
            callback = await find_callback(connection, due.request_id)
        if callback is None:
            return
        closed = callback.closed is not None  # a result that came later does not count
        body = closed_body(due.request_id, callback.closed, callback.closed_at) if closed else callback.body
        target, problem = await self._target(callback.callback_url, due.user_id)
        if problem is None:
            failure = await self._post(target, due.request_id, body)
            if failure is None:
                self._silent.pop(due.host, None)
                outcome.delivered += 1
                await self._finish(due.request_id, None)
                return
            if not failure.gone and time.time() - callback.finished_at.timestamp() < self._give_up_seconds:
                pause = RETRY_SECONDS[min(callback.callback_attempts, len(RETRY_SECONDS) - 1)]
                pause = max(pause, failure.wait)
                log.warning("callback.failed", request_id=str(due.request_id), error=failure.reason, again_in=pause)
                outcome.failed_attempts += 1
                await self._try_again(due, failure, pause, outcome)
                return
            problem = (
                "its receiver answered 410 Gone"
                if failure.gone
                else f"given up after {self._give_up_seconds:g} s: {failure.reason}"
            )
        log.error("callback.given_up", request_id=str(due.request_id), reason=problem)
        outcome.given_up += 1
        await self._finish(due.request_id, problem)

    async def _finish(self, request_id: UUID, lost: str | None) -> None:
        async with self._engine.begin() as connection:
            await finish_callback(connection, request_id, lost)

    async def _try_again(self, due: DueCallback, failure: Failure, pause: float, outcome: CallbackOutcome) -> None:
        """Record the failed attempt. Put off the host if it asked for that, or has not answered several times."""
        put_off = failure.wait
        if failure.silent:
            if len(self._silent) > 10_000:
                self._silent.clear()
            self._silent[due.host] = silent = self._silent.get(due.host, 0) + 1
            if silent >= SILENT_ATTEMPTS:
                put_off = PUT_OFF_SECONDS[min(silent - SILENT_ATTEMPTS, len(PUT_OFF_SECONDS) - 1)]
        else:
            self._silent.pop(due.host, None)
        async with self._engine.begin() as connection:
            if put_off:
                outcome.given_up += await put_off_host(connection, due.host, put_off, self._give_up_seconds)
                log.warning("callback.host_put_off", host=due.host, seconds=put_off)
            await try_callback_again(connection, due.request_id, pause)

    async def _target(self, url: str, user_id: UUID) -> tuple["Target", str | None]:
        """The addresses to post to, or the reason why they are refused: a callback must not reach a private address.

        The checked address is the one that is called, since the name may resolve to another one a moment later.
        """
        try:
            parsed = httpx.URL(url)
            addresses = await self._lookups.addresses(parsed.raw_host.decode(), user_id)
        except TimeoutError as error:
            return Target((), trouble=str(error) or "the look-up of its host takes too long"), None
        except (OSError, UnicodeError, httpx.InvalidURL):
            return Target((), trouble="its host cannot be found"), None
        inside = [] if self._allow_private else [address for address in addresses if not is_public(address)]
        if inside:
            log.warning("callback.not_public", host=parsed.host, address=inside[0])
            return Target(()), f"{parsed.host} is not a public address"  # which one it is stays here
        urls = [parsed.copy_with(host=address) for address in addresses[:MAX_ADDRESSES]]
        return Target(urls, parsed.netloc.decode(), parsed.raw_host.decode()), None

    async def _post(self, target: "Target", request_id: UUID, body: bytes) -> Failure | None:
        """Post the result. Return the failure, or None. Only status and Retry-After of the answer are read."""
        if target.trouble:
            return Failure(target.trouble, silent=True)
        message_id, moment = f"msg_{request_id}", str(int(time.time()))
        signature = self._keys.signing.sign(b".".join((message_id.encode(), moment.encode(), body)))
        headers = {
            "Content-Type": "application/json",
            "Host": target.host,
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": "v1a," + base64.b64encode(signature).decode(),
        }
        problem = "no address"
        try:
            async with asyncio.timeout(CALLBACK_SECONDS):
                for url in target.urls:
                    request = self._http.build_request(
                        "POST",
                        url,
                        content=body,
                        headers=headers,
                        timeout=CALLBACK_SECONDS,
                        extensions={"sni_hostname": target.name},
                    )
                    try:
                        response = await self._http.send(request, stream=True)
                    except httpx.ConnectError as error:
                        problem = _reason(request_id, error)
                        continue
                    await response.aclose()
                    return _failure(response)
        except TimeoutError:
            problem = f"no answer within {CALLBACK_SECONDS:g} s"
        except (httpx.HTTPError, OSError, ValueError) as error:
            problem = _reason(request_id, error)
        return Failure(problem, silent=True)


def _reason(request_id: UUID, error: Exception) -> str:
    """The reason for the owner, who learns no address, and nothing that a server inside said."""
    log.debug("callback.error", request_id=str(request_id), error=describe(error))
    return _WORDS.get(type(error), "its host cannot be reached")


_WORDS: dict[type[Exception], str] = {
    httpx.ConnectTimeout: f"no answer within {CALLBACK_SECONDS:g} s",
    httpx.ReadTimeout: f"no answer within {CALLBACK_SECONDS:g} s",
    httpx.RemoteProtocolError: "its answer is not HTTP, or was cut off",
    httpx.ReadError: "the connection broke",
    httpx.WriteError: "the connection broke",
}


@dataclass(frozen=True)
class Target:
    """The URLs to call, with addresses as hosts; ``host`` and ``name`` hold the name. ``trouble``: why none."""

    urls: Sequence[httpx.URL]
    host: str = ""
    name: str = ""
    trouble: str = ""


def _failure(response: httpx.Response) -> Failure | None:
    if response.is_success:
        return None
    return Failure(
        f"status {response.status_code}",
        gone=response.status_code == GONE,
        wait=_retry_after(response.headers.get("retry-after", "")),
    )


def _retry_after(header: str) -> float:
    """Seconds that the receiver asks to wait (RFC 9110, 10.2.3), a day at most; 0 without such a header."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), MAX_RETRY_AFTER)
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(max((moment - datetime.now(UTC)).total_seconds(), 0.0), MAX_RETRY_AFTER)
