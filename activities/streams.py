"""Delivering the streams that the response network pushes."""

from temporalio import activity

from activities.heartbeats import brief_until, for_temporal, heartbeating
from activities.link_watch import LinkWatch
from configuration.cadences import DEFAULT_CADENCES
from exchange.delivery import Delivery
from exchange.errors import LinkError
from models.outcomes import DrainOutcome
from models.streams import StreamName
from storage.catalog import public_records


class StreamActivities:
    """Safe to run twice: sealed batches are sent as they are, and the receiver takes each once."""

    def __init__(self, delivery: Delivery, watch: LinkWatch | None = None) -> None:
        self._delivery = delivery
        self._watch = watch or LinkWatch(delivery.engine, DEFAULT_CADENCES)

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
            try:
                outcome = await self._delivery.drain(stream, beat, brief_until())
            except LinkError as error:
                raise for_temporal(error, await self._watch.failed(stream, error)) from error
            await self._watch.succeeded(stream)
            return outcome
