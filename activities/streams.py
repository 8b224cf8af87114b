"""Delivering the streams that the response network pushes."""

from collections.abc import Awaitable, Callable

from temporalio import activity

from activities.heartbeats import brief_until, for_temporal, heartbeating
from activities.link_watch import LinkWatch
from activities.standing_by import standing_by
from configuration.cadences import DEFAULT_CADENCES
from exchange.delivery import Delivery
from exchange.errors import LinkError
from models.outcomes import DrainOutcome
from models.streams import StreamName
from storage.catalog import public_records
from storage.database import autocommit
from storage.outgoing import is_outstanding
from storage.standby import Standby, ready


async def _never() -> bool:
    return False


class StreamActivities:
    """Safe to run twice: sealed batches are sent as they are, and the receiver takes each once."""

    def __init__(
        self,
        delivery: Delivery,
        watch: LinkWatch | None = None,
        standby: Standby | None = None,
        is_paused: Callable[[], Awaitable[bool]] = _never,
    ) -> None:
        self._delivery = delivery
        self._watch = watch or LinkWatch(delivery.engine, DEFAULT_CADENCES)
        self._standby = standby or Standby()
        self._is_paused = is_paused

    @activity.defn
    async def seal_settings(self) -> int:
        """Seal a settings snapshot if what is public changed since the last; gives the number of batches sealed."""
        async with heartbeating(), self._delivery.engine.begin() as connection:
            records = await public_records(connection)
            return len(await self._delivery.sealer.seal_snapshot(connection, StreamName.SETTINGS, records))

    @activity.defn
    async def drain(self, stream: StreamName) -> DrainOutcome:
        """Seal and deliver until caught up; where there is nothing, send a signed heartbeat.

        An attempt that died left sealed batches behind, which the next one sends first. A local activity has a
        second, and may leave ``more``.
        """
        async with heartbeating() as beat:
            await self._delivery.begin(stream, activity.info().workflow_id or "")
            return await self._deliver(stream, beat)

    @activity.defn
    async def drain_when_ready(self, stream: StreamName) -> DrainOutcome:
        """Stand by for `STANDS_BY_SECONDS`, and seal and deliver at once what gets ready, unless an operator paused it.

        An activity that is not local delivers what is ready.
        """
        total = DrainOutcome()
        async with heartbeating() as beat, standing_by(self._standby, ready(stream)) as may_be_something:
            while not total.more and await may_be_something():
                async with autocommit(self._delivery.engine) as connection:
                    outstanding = await is_outstanding(connection, stream)
                if outstanding:
                    if await self._is_paused():
                        break
                    total = total.plus(await self._deliver(stream, beat))
        return total

    async def _deliver(self, stream: StreamName, progress: Callable[[DrainOutcome], None]) -> DrainOutcome:
        try:
            outcome = await self._delivery.drain(stream, progress, brief_until())
        except LinkError as error:
            raise for_temporal(error, await self._watch.failed(stream, error)) from error
        await self._watch.succeeded(stream)
        return outcome
