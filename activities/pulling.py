"""Pulling requests from the request network."""

import asyncio
import time
from collections.abc import Callable

from temporalio import activity

from activities.heartbeats import for_temporal, heartbeating
from activities.link_watch import LinkWatch
from configuration.cadences import DEFAULT_CADENCES
from exchange.errors import LinkError
from exchange.link import POLL_SECONDS
from exchange.pulling import Pull, Started
from exchange.rate_limiter import RateLimiter
from models.outcomes import PullProgress
from models.streams import BatchRef, StreamName
from storage.database import autocommit
from storage.incoming import unapplied_bundles

ROUND_SECONDS = 600.0
"""After this long the activity returns, so that its workflow's history tells how many batches came in."""
LEFT_AT_ONCE = 200
BUNDLE = 500
"""Batches that are taken with one poll, if so many wait: they are executed together, by one workflow."""
SPACING_SECONDS = 0.1
WIDEST_SPACING_SECONDS = 1.0
"""Time from one bundle to the next for each that is not executed yet, and at most. Bundles grow under load, and the
cost of orchestration, which is per bundle, stays bounded. What comes alone does not wait; see `RateLimiter`."""


class PullActivities:
    """Safe to run twice: a batch is stored once, whoever offers it, and executed once, however often it is started."""

    def __init__(self, pull: Pull, execute: Started, watch: LinkWatch | None = None) -> None:
        self._pull = pull
        self._execute = execute
        self._watch = watch or LinkWatch(pull.engine, DEFAULT_CADENCES)

    @activity.defn
    async def pull_requests(self, so_far: PullProgress) -> PullProgress:
        """For one round: wait for batches of requests, or of one partition of them, store each and start its execution.

        First, batches that are stored and not executed are started again: whoever stored them may not have lived to do
        so. Returns early when the worker stops, so that another one goes on at once. An attempt goes on counting where
        the one before it was.
        """
        earlier = activity.info().heartbeat_details
        progress = PullProgress.model_validate(earlier[0]) if earlier else so_far.model_copy()
        stream = progress.stream
        async with heartbeating() as beat:
            try:
                await self._recover(stream)
                await self._pull_until(stream, time.monotonic() + ROUND_SECONDS, progress, beat)
            except LinkError as error:
                raise for_temporal(error, await self._watch.failed(stream, error)) from error
        return progress

    async def _recover(self, stream: StreamName) -> None:
        await self._start_left(stream)  # first: it needs no link
        await self._pull.confirm(stream)

    async def _start_left(self, stream: StreamName) -> None:
        async with autocommit(self._pull.engine) as connection:
            left = await unapplied_bundles(connection, stream, LEFT_AT_ONCE)
        for batch in left:
            await self._execute(batch)

    async def _next(self, stream: StreamName, limiter: RateLimiter) -> BatchRef | None:
        await asyncio.sleep(limiter.left())
        return await self._pull.once(stream, POLL_SECONDS, BUNDLE, self._execute)

    async def _spacing(self, stream: StreamName) -> float:
        """Seconds from this bundle to the next."""
        most = round(WIDEST_SPACING_SECONDS / SPACING_SECONDS)
        async with autocommit(self._pull.engine) as connection:
            waiting = await unapplied_bundles(connection, stream, most)
        return max(1, len(waiting)) * SPACING_SECONDS

    async def _pull_until(
        self, stream: StreamName, end: float, progress: PullProgress, beat: Callable[[PullProgress], None]
    ) -> None:
        stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
        poll: asyncio.Task[BatchRef | None] | None = None
        limiter = RateLimiter(SPACING_SECONDS)
        try:
            while not stopping.done() and time.monotonic() < end:
                poll = poll or asyncio.create_task(self._next(stream, limiter))
                await asyncio.wait((poll, stopping), return_when=asyncio.FIRST_COMPLETED)
                if not poll.done():
                    return
                batch, poll = poll.result(), None
                await self._watch.succeeded(stream)
                if batch:
                    limiter.take(await self._spacing(stream))
                    progress.batches += batch.batches
                    progress.records += batch.records
                    beat(progress)
                else:  # time to look after what an operator's retry or repair took up again
                    await self._start_left(stream)
        finally:
            left = [task for task in (stopping, poll) if task is not None and not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)  # what the poll holds open is closed before the worker closes its pools
