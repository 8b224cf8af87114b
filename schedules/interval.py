"""The interval of a scheduled run: it ends when the next run waits behind it, or when the schedule is paused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

log = structlog.get_logger(__name__)

LOOK_SECONDS = 4.0
"""How often the schedule is read, so that a pause made in any tool stops delivery within 10 s."""
AFTER_TICK_SECONDS = 0.1
"""The schedule is read this long after a tick: by then Temporal has put the next run behind this one."""
OVERDUE = timedelta(seconds=10)
"""A run ends this long after the tick even if no other run waits, as when the schedule was changed to skip."""
ASK_SECONDS = 2.0
"""For an answer with all retries of Temporal's client. A run begins to deliver even while Temporal is away."""


class OwnedInterval:
    """Tells whether the current run may go on. While Temporal does not answer, its last answer counts."""

    def __init__(self, client: Client, schedule_id: str) -> None:
        self._schedule = client.get_schedule_handle(schedule_id)
        self._tick: datetime | None = None
        self.is_paused = False
        self.is_over = False
        """The next run waits for this one to end, or the schedule is gone."""
        self.ended = asyncio.Event()
        """Set when the interval is over, or paused."""

    async def look(self) -> None:
        """Read the schedule once."""
        await self._look()
        if self.is_over or self.is_paused:
            self.ended.set()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found = await self._schedule.describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                self.is_over = True  # deleted: no other run follows
            else:
                log.info("schedule.not_asked", schedule=self._schedule.id, error=error.message)
            return
        except TimeoutError:
            log.info("schedule.not_asked", schedule=self._schedule.id, error="no answer")
            return
        self.is_paused = found.schedule.state.paused
        if self._tick is None and found.info.next_action_times:
            self._tick = found.info.next_action_times[0]
        overdue = self._tick is not None and datetime.now(UTC) > self._tick + OVERDUE
        self.is_over = overdue or found.raw_description.info.buffer_size > 0

    def stopped_looking(self, looking: "asyncio.Task[None]") -> None:
        """End the run if the loop broke, so that the next run takes over."""
        if not looking.cancelled() and (error := looking.exception()) is not None:
            log.error("schedule.looking_broke", schedule=self._schedule.id, exc_info=error)
            self.is_over = True
            self.ended.set()

    async def keep_current(self) -> None:
        """Read the schedule every `LOOK_SECONDS`, and right after the next tick."""
        while True:
            left = (self._tick - datetime.now(UTC)).total_seconds() + AFTER_TICK_SECONDS if self._tick else LOOK_SECONDS
            await asyncio.sleep(min(LOOK_SECONDS, left) if left > 0 else LOOK_SECONDS)
            await self.look()


@asynccontextmanager
async def owned_interval(client: Client, schedule_id: str) -> AsyncIterator[OwnedInterval]:
    """The interval of the current run, kept up to date during the block."""
    interval = OwnedInterval(client, schedule_id)
    await interval.look()
    looking = asyncio.create_task(interval.keep_current())
    looking.add_done_callback(interval.stopped_looking)
    try:
        yield interval
    finally:
        looking.cancel()
