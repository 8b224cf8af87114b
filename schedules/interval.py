"""The interval that a run of a schedule owns: from its start until the next run waits, or an operator pauses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import structlog
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

log = structlog.get_logger(__name__)

LOOK_SECONDS = 4.0
"""How often the schedule is looked at: an operator's pause stops delivery within 10 s, whatever tool it was made in."""
AFTER_TICK_SECONDS = 0.1
"""How long after a tick the next run is looked for: by then Temporal has put it behind this one."""
OVERDUE = timedelta(seconds=10)
"""How long after its tick a run ends although no other waits, say because the schedule was changed to skip."""
ASK_SECONDS = 2.0
"""For an answer, with all retries of Temporal's client: a run begins to deliver although Temporal is away."""


class OwnedInterval:
    """Whether the run under way may go on, by what its schedule says. While Temporal does not answer, its last answer
    counts.
    """

    def __init__(self, client: Client, schedule_id: str) -> None:
        self._schedule = client.get_schedule_handle(schedule_id)
        self._tick: datetime | None = None
        self.is_paused = False
        self.is_over = False
        """The next run waits for this one to end, or there will be none."""
        self.ended = asyncio.Event()
        """Set when it is over, or paused."""

    async def look(self) -> None:
        """Ask Temporal once."""
        await self._look()
        if self.is_over or self.is_paused:
            self.ended.set()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(ASK_SECONDS):
                found = await self._schedule.describe()
        except RPCError as error:
            if error.status is RPCStatusCode.NOT_FOUND:
                self.is_over = True  # deleted: no run follows, and nobody is to be kept waiting by this one
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

    async def keep_current(self) -> None:
        """Look again and again, and right after the next tick."""
        while True:
            left = (self._tick - datetime.now(UTC)).total_seconds() + AFTER_TICK_SECONDS if self._tick else LOOK_SECONDS
            await asyncio.sleep(min(LOOK_SECONDS, left) if left > 0 else LOOK_SECONDS)
            await self.look()


@asynccontextmanager
async def owned_interval(client: Client, schedule_id: str) -> AsyncIterator[OwnedInterval]:
    """The interval of the run under way, kept current for the block."""
    interval = OwnedInterval(client, schedule_id)
    await interval.look()
    looking = asyncio.create_task(interval.keep_current())
    try:
        yield interval
    finally:
        looking.cancel()
