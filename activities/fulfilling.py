"""From submission to the end of a group: what is overdue is closed, and owners who asked for it are called back."""

import asyncio
import base64
import ipaddress
import socket
import time
from urllib.parse import urlsplit
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
from storage.arrivals import callbacks_due, mark_callback
from storage.database import AnyRow
from storage.submissions import expire_overdue, group_state, mark_group_fulfilled

log = structlog.get_logger(__name__)

CALLBACK_SECONDS = 10.0
CALLBACKS_AT_ONCE = 8
CALLBACKS_PER_ROUND = 500


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
        async with self._engine.begin() as connection:
            await expire_overdue(connection, group)
            state = await group_state(connection, group)
            if not state.outstanding:
                await mark_group_fulfilled(connection, group)
        return state

    @activity.defn
    async def call_back(self, group: BatchRef) -> CallbackOutcome:
        """Deliver the callbacks of finished requests, one round; what fails stays due until it is given up.

        Signed as Standard Webhooks ask (webhook-id, webhook-timestamp, webhook-signature ``v1a``), with this network's
        Ed25519 key.
        """
        outcome = CallbackOutcome()
        slots = asyncio.Semaphore(CALLBACKS_AT_ONCE)
        async with heartbeating():
            async with self._engine.connect() as connection:
                due = await callbacks_due(connection, group, CALLBACKS_PER_ROUND)

            async def one(found: AnyRow) -> None:
                async with slots:
                    await self._call(found, outcome)

            await asyncio.gather(*(one(found) for found in due))
        return outcome

    async def _call(self, found: AnyRow, outcome: CallbackOutcome) -> None:
        body = found.body or closed_body(found.request_id, found.closed, found.closed_at)
        problem = await self._refused(found.callback_url)
        if problem is None:
            failure = await self._post(found.callback_url, found.request_id, body)
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

    async def _refused(self, url: str) -> str | None:
        """Why this address may not be called: in the exposed network a caller must not reach what only we can reach."""
        if self._allow_private:
            return None
        host = urlsplit(url).hostname or ""
        try:
            loop = asyncio.get_running_loop()
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError:
            return None
        inside = [item[4][0] for item in found if not ipaddress.ip_address(item[4][0]).is_global]
        return f"{host} is not a public address ({inside[0]})" if inside else None

    async def _post(self, url: str, request_id: UUID, body: bytes) -> str | None:
        """Why it failed; None when it was taken."""
        message_id, moment = f"msg_{request_id}", str(int(time.time()))
        signature = self._keys.signing.sign(b".".join((message_id.encode(), moment.encode(), body)))
        headers = {
            "Content-Type": "application/json",
            "webhook-id": message_id,
            "webhook-timestamp": moment,
            "webhook-signature": "v1a," + base64.b64encode(signature).decode(),
        }
        try:
            response = await self._http.post(url, content=body, headers=headers, timeout=CALLBACK_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return str(error) or type(error).__name__
        return None if response.is_success else f"status {response.status_code}"
