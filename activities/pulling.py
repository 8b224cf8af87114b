"""Pulling requests from the request network."""

import asyncio
import time

from temporalio import activity

from activities.heartbeats import for_temporal, heartbeating
from exchange.errors import LinkPaused, LinkUnavailable
from exchange.link import POLL_SECONDS
from exchange.pulling import Pull
from models.streams import BatchRef, StreamName
from storage.incoming import unapplied

IDLE_SECONDS = 600.0
"""After this long without a batch the activity returns, so that its workflow shows signs of life."""
BATCHES_AT_ONCE = 50
"""Batches handed over together, so that a backlog costs few workflow tasks."""


class PullActivities:
    """Safe to run twice: a batch is stored once, whoever offers it."""

    def __init__(self, pull: Pull) -> None:
        self._pull = pull

    @activity.defn
    async def pull_requests(self, recover: bool) -> list[BatchRef]:
        """Wait for batches of requests, store them and give them for execution.

        With ``recover``, or when an earlier attempt died, batches that are stored and not executed are given first:
        whoever stored them may not have lived to say so.
        """
        async with heartbeating():
            try:
                if recover or activity.info().attempt > 1:
                    await self._pull.confirm(StreamName.REQUESTS)
                    async with self._pull.engine.connect() as connection:
                        left = await unapplied(connection, StreamName.REQUESTS, limit=BATCHES_AT_ONCE)
                    if left:
                        return left
                return await self._wait_for_batches()
            except (LinkUnavailable, LinkPaused) as error:
                raise for_temporal(error) from error

    async def _wait_for_batches(self) -> list[BatchRef]:
        accepted: list[BatchRef] = []
        until = time.monotonic() + IDLE_SECONDS
        stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
        try:
            while not accepted and time.monotonic() < until and not stopping.done():
                poll = asyncio.create_task(self._pull.once(StreamName.REQUESTS, POLL_SECONDS))
                await asyncio.wait((poll, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not poll.done():
                    poll.cancel()
                    break
                accepted += [batch] if (batch := poll.result()) else []
        finally:
            stopping.cancel()
        while 0 < len(accepted) < BATCHES_AT_ONCE and (batch := await self._more()):
            accepted.append(batch)
        return accepted

    async def _more(self) -> BatchRef | None:
        """One that waits already; what is accepted must be handed over even when the link fails just now."""
        try:
            return await self._pull.once(StreamName.REQUESTS, 0)
        except (LinkUnavailable, LinkPaused):
            return None
