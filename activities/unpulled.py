"""Requests that the other network seals in partitions that this one does not pull: noticed, and an alarm."""

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from activities.link_alarms import judge_unpulled, unpulled_alarm
from exchange.errors import LinkError
from exchange.remote_side import RemoteSide
from models.streams import Network, StreamName
from storage.database import is_unreachable
from storage.incoming import incoming_stream
from storage.monitoring import settle_alerts, stream_state
from storage.partitions import record_sealed_there

log = structlog.get_logger(__name__)

LOOK_SECONDS = 60.0


class UnpulledPartitions:
    """Asks the request network which streams it uses, beside the worker. ``pulled``: so many partitions are pulled.

    Safe at any time, and in any number of workers: it only notes what the other side says.
    """

    def __init__(self, engine: AsyncEngine, far: RemoteSide, pulled: int) -> None:
        self._engine = engine
        self._far = far
        self._pulled = pulled

    async def run(self) -> None:
        """Look for ever. What cannot be asked or noted now is, the next time; the pulling tells of a dead link."""
        while True:
            try:
                await self.look()
            except LinkError as error:
                log.debug("partitions.not_asked", error=str(error))
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.warning("partitions.not_noted", error=type(error).__name__)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Note how far partitions that are not pulled here are sealed there; raise or clear their alarms."""
        places = {each.stream: each for each in (await self._far.streams()).streams}
        others = [stream for stream in StreamName.REQUESTS.partitions()[self._pulled :] if stream in places]
        if not others:
            return
        wanted: dict[str, str] = {}
        async with self._engine.begin() as connection:
            for stream in others:
                cursor = await incoming_stream(connection, stream)
                if cursor.epoch == places[stream].epoch:
                    await record_sealed_there(connection, stream, places[stream].sequence)
                state = await stream_state(connection, Network.RESPONSE, stream)
                wanted |= judge_unpulled(state, self._pulled)
            raised, _, _ = await settle_alerts(connection, wanted, {unpulled_alarm(stream) for stream in others})
        for name in raised:
            log.warning("alert.raised", alert=name, message=wanted[name])
