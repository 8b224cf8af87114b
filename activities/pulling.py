"""Pulls requests from the request network."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from temporalio import activity

from exchange.carriers.http import POLL_SECONDS
from exchange.errors import LinkError, LinkUnavailable
from exchange.transfer.incoming import count_unapplied_pulls, unapplied
from exchange.transfer.pulling import Pull, Started
from exchange.transfer.rate_limiter import RateLimiter
from exchange.wire.manifest import MAX_RECORDS
from models.outcomes import PullProgress
from models.streams import BatchRef, StreamName
from monitoring.link_watch import LinkWatch
from orchestration.link_failures import again_in, for_temporal
from orchestration.resident import ROUND_SECONDS, earlier_progress, heartbeating
from storage.database import autocommit

MOST_BATCHES = 500
"""Batches per poll at most. One workflow executes them together."""
SPACING_SECONDS = 0.1
WIDEST_SPACING_SECONDS = 1.0
"""Seconds from one pull to the next: 0.1, more by 0.1 for each earlier pull that is not executed yet, and 1 at most.
Under load each pull brings more batches, so that the cost of orchestration, which is per pull, stays bounded. See
`RateLimiter`."""
START_SECONDS = 10.0
"""A new activity retries by itself for this time, because both networks may be starting."""
LEFT_SECONDS = 5.0
LEFT_AT_ONCE = 5000
"""A batch that was stored 5 s ago, is not executed and is in no running execution was left behind by a dead worker."""
LOOK_SECONDS = 5.0
"""How often such batches are looked for."""

STREAM = StreamName.REQUESTS


class PullActivities:
    """Safe to run twice: a batch is stored once, and a request that has a result is not executed again."""

    def __init__(
        self,
        pull: Pull,
        execute: Started,
        running: Callable[[], Awaitable[Sequence[BatchRef]]],
        watch: LinkWatch,
    ) -> None:
        """``execute`` starts the execution of batches; ``running`` gives the batches of running executions."""
        self._pull = pull
        self._execute = execute
        self._running = running
        self._watch = watch

    @activity.defn
    async def pull_requests(self, so_far: PullProgress) -> PullProgress:
        """For one round: wait for batches of requests, store them and start their execution.

        First start the execution of batches that a dead worker left behind. Return early when this worker stops, so
        that another one continues at once. A later attempt continues the counts of the attempt before it.
        """
        progress = earlier_progress(PullProgress) or so_far.model_copy()
        async with heartbeating() as beat:
            beat(progress)
            began = time.monotonic()
            while True:
                try:
                    await self._start_left()  # first: it needs no link
                    await self._pull.confirm(STREAM)
                    await self._pull_for_a_round(progress, beat)
                    return progress
                except LinkError as error:
                    failures = await self._watch.failed(STREAM, error)
                    passes = isinstance(error, LinkUnavailable) and time.monotonic() - began < START_SECONDS
                    if not passes:
                        raise for_temporal(error, failures) from None
                    await asyncio.sleep(again_in(error, failures))

    async def _start_left(self) -> None:
        async with autocommit(self._pull.engine) as connection:
            waiting = await unapplied(connection, STREAM, LEFT_SECONDS, LEFT_AT_ONCE)
        if waiting:
            for batches in ranges(waiting, await self._running()):
                await self._execute(batches)

    async def _next(self, limiter: RateLimiter) -> BatchRef | None:
        await asyncio.sleep(limiter.left())
        return await self._pull.once(STREAM, POLL_SECONDS, MOST_BATCHES, self._execute)

    async def _spacing(self, pulled: BatchRef) -> float:
        """Seconds from this pull to the next."""
        async with autocommit(self._pull.engine) as connection:
            before = await count_unapplied_pulls(connection, STREAM, pulled.epoch, pulled.begin)
        return min((1 + before) * SPACING_SECONDS, WIDEST_SPACING_SECONDS)

    async def _pull_for_a_round(self, progress: PullProgress, beat: Callable[[PullProgress], None]) -> None:
        clock = asyncio.get_running_loop().time
        ends_at, looks_at = clock() + ROUND_SECONDS, clock() + LOOK_SECONDS
        stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
        poll: asyncio.Task[BatchRef | None] | None = None
        asked_at = clock()
        limiter = RateLimiter(SPACING_SECONDS)
        try:
            while not stopping.done() and (poll is not None or clock() < ends_at):
                if poll is None:
                    poll, asked_at = asyncio.create_task(self._next(limiter)), clock()
                await asyncio.wait((poll, stopping), timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if stopping.done() and not poll.done():
                    return
                if clock() >= looks_at:
                    await self._start_left()  # also while batches keep coming: those left behind must not wait
                    looks_at = clock() + LOOK_SECONDS
                if not poll.done():
                    continue
                pulled, poll = poll.result(), None
                await self._watch.succeeded(STREAM)
                if pulled is None and clock() < asked_at + WIDEST_SPACING_SECONDS:
                    limiter.take(WIDEST_SPACING_SECONDS)  # the other side decides how soon it answers
                if pulled:
                    limiter.take(await self._spacing(pulled))
                    progress.batches += pulled.batches
                    progress.records += pulled.records
                    beat(progress)
        finally:
            left = [task for task in (stopping, poll) if task is not None and not task.done()]
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left)  # the poll must close its connections before the worker closes its pools


def ranges(waiting: Sequence[BatchRef], running: Sequence[BatchRef]) -> list[BatchRef]:
    """The waiting batches that no running execution has, in as few ranges as possible. ``waiting`` is in order.

    A range has consecutive batches of one epoch, and no more records than one pull may bring.
    """
    found: list[BatchRef] = []
    for batch in waiting:
        if any(run.epoch == batch.epoch and run.begin <= batch.sequence <= run.sequence for run in running):
            continue
        last = found[-1] if found else None
        follows = last is not None and (last.epoch, last.sequence + 1) == (batch.epoch, batch.sequence)
        if last is not None and follows and last.records + batch.records <= MAX_RECORDS:
            found[-1] = last.model_copy(
                update={"sequence": batch.sequence, "records": last.records + batch.records, "first": last.begin}
            )
        else:
            found.append(batch)
    return found
