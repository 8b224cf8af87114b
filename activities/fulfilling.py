"""From submission to the end of a group: what is overdue is closed, and owners who asked for it are called back."""

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
from temporalio import activity

from activities.heartbeats import heartbeating
from exchange.keys import LinkKeys
from models.outcomes import CallbackOutcome, GroupState
from models.results import closed_body
from models.streams import BatchRef
from storage.database import AnyRow
from storage.result_store import callbacks_due, mark_callback
from storage.submissions import expire_overdue, group_state, mark_group_fulfilled

log = structlog.get_logger(__name__)

CALLBACK_SECONDS = 10.0
CALLBACKS_AT_ONCE = 32
"""A group of 5,000 whose receivers are all dead takes 26 minutes: less than the activity has."""
CALLBACKS_AT_A_TIME = 500
"""Bodies held in memory."""


class FulfilmentActivities:
    """Safe to run twice: closing looks at what is open only, and a callback that comes again has the same id."""

    def __init__(
        self, engine: AsyncEngine, keys: LinkKeys, allow_private: bool, give_up_seconds: float, http: httpx.AsyncClient
    ) -> None:
        self._engine = engine
        self._keys = keys
        self._allow_private = allow_private
        self._give_up_seconds = give_up_seconds
        self._http = http

    @activity.defn
    async def settle_group(self, group: BatchRef) -> GroupState:
        """Close what is overdue, say what is outstanding, and note when nothing is."""
        async with heartbeating(), self._engine.begin() as connection:
            await expire_overdue(connection, group)
            state = await group_state(connection, group)
            if not state.outstanding:
                await mark_group_fulfilled(connection, group)
        return state

    @activity.defn
    async def call_back(self, group: BatchRef) -> CallbackOutcome:
        """Deliver the callbacks of all finished requests, each once; what fails stays due until it is given up.

        Signed as Standard Webhooks ask (webhook-id, webhook-timestamp, webhook-signature ``v1a``), with this network's
        Ed25519 key.
        """
        outcome = CallbackOutcome()
        slots = asyncio.Semaphore(CALLBACKS_AT_ONCE)

        async def one(found: AnyRow) -> None:
            async with slots:
                await self._call(found, outcome)

        after: UUID | None = None
        async with heartbeating():
            while True:
                async with self._engine.connect() as connection:
                    due = await callbacks_due(connection, group, after, CALLBACKS_AT_A_TIME)
                await asyncio.gather(*(one(found) for found in due))
                if len(due) < CALLBACKS_AT_A_TIME:
                    return outcome
                after = due[-1].request_id

    async def _call(self, found: AnyRow, outcome: CallbackOutcome) -> None:
        late = found.closed is not None  # then a result does not count, though it is here
        body = closed_body(found.request_id, found.closed, found.closed_at) if late else found.body
        target, problem = await self._target(found.callback_url)
        if problem is None:
            failure = await self._post(target, found.request_id, body)
            if failure is None:
                outcome.delivered += 1
                await self._mark(found.request_id, None)
                return
            if time.time() - found.finished_at.timestamp() < self._give_up_seconds:
                log.warning("callback.failed", request_id=str(found.request_id), error=failure)
                outcome.due += 1
                return
            problem = f"given up after {self._give_up_seconds:g} s: {failure}"
        log.error("callback.given_up", request_id=str(found.request_id), reason=problem)
        outcome.given_up += 1
        await self._mark(found.request_id, problem)

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
            return str(error) or type(error).__name__
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
