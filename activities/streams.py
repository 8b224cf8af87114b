"""Delivers the streams that the response network pushes."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

from temporalio import activity

from exchange.errors import LinkError
from exchange.transfer.delivery import Delivery
from models.outcomes import DrainOutcome
from models.streams import StreamName
from monitoring.link_watch import LinkWatch
from orchestration.link_failures import for_temporal
from orchestration.resident import ROUND_SECONDS, Resident, earlier_progress, heartbeating, resident
from schedules.interval import OwnedInterval
from settings.snapshot import public_records
from storage.notices import NotificationListener, ready


class StreamActivities:
    """Safe to run twice: sealed batches are sent as they are, and the receiver takes each once."""

    def __init__(
        self,
        delivery: Delivery,
        watch: LinkWatch,
        listener: NotificationListener,
        interval: Callable[[], AbstractAsyncContextManager[OwnedInterval]],
        follows: bool = True,
    ) -> None:
        """``interval`` opens the interval that a run of `ExportResults` owns. With ``follows``, such a run also
        delivers results that become ready during its interval.
        """
        self._delivery = delivery
        self._watch = watch
        self._listener = listener
        self._interval = interval
        self._follows = follows

    @activity.defn
    async def seal_settings(self) -> int:
        """Seal a snapshot if the public settings changed since the last one; returns the number of batches sealed."""
        async with heartbeating(), self._delivery.engine.begin() as connection:
            records = await public_records(connection)
            return len(await self._delivery.sealer.seal_snapshot(connection, StreamName.SETTINGS, records))

    @activity.defn
    async def deliver(self, stream: StreamName) -> DrainOutcome:
        """Seal and deliver all records that are ready; if there are none, send a signed heartbeat.

        Batches that an earlier attempt sealed and did not deliver are sent first.
        """
        async with heartbeating() as beat:
            return await self._drain(stream, beat, lambda: True)

    @activity.defn
    async def deliver_until_next_tick(self, stream: StreamName) -> DrainOutcome:
        """Deliver what is ready, then whatever becomes ready, until the next run of the schedule waits for this one.

        An operator's pause ends it, too. A run that was triggered by hand during a pause delivers what is ready and
        ends. Returns ``unfinished`` if the worker stops or the round is over before that.
        """
        total = earlier_progress(DrainOutcome) or DrainOutcome()
        async with resident(self._listener, ready(stream)) as here, self._interval() as interval:
            if interval.is_paused and activity.info().attempt == 1:
                total.in_spite_of_pause = True
                here.beat(total)
            if total.in_spite_of_pause or not self._follows:
                delivered = await self._drain(stream, partial(_beat_with, here, total), lambda: True, until_now=True)
                return total.plus(delivered)
            return await self._follow(stream, total, here, interval)

    async def _follow(
        self, stream: StreamName, total: DrainOutcome, here: Resident, interval: OwnedInterval
    ) -> DrainOutcome:
        def may_go_on() -> bool:
            return not (here.is_over or interval.is_over or interval.is_paused)

        has_begun = activity.info().attempt > 1
        while may_go_on() or not (has_begun or here.is_over):  # the first pass always delivers what is ready
            progress = partial(_beat_with, here, total)
            outcome = await self._drain(stream, progress, may_go_on, heartbeat=not has_begun)
            total, has_begun = total.plus(outcome), True
            if may_go_on():
                await here.wait(ROUND_SECONDS, until=interval.ended)
        total.unfinished = not (interval.is_over or interval.is_paused)
        return total

    async def _drain(
        self,
        stream: StreamName,
        progress: Callable[[DrainOutcome], None],
        may_go_on: Callable[[], bool],
        heartbeat: bool = True,
        until_now: bool = False,
    ) -> DrainOutcome:
        try:
            outcome = await self._delivery.drain(stream, progress, may_go_on, heartbeat, until_now)
        except LinkError as error:
            raise for_temporal(error, await self._watch.failed(stream, error)) from None
        if outcome.batches or outcome.heartbeat:
            await self._watch.succeeded(stream)
        return outcome


def _beat_with(here: Resident, before: DrainOutcome, done: DrainOutcome) -> None:
    here.beat(before.plus(done))
