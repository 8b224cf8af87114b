"""Word that results are ready: starts ``ExportResults`` at once, through its schedule, so that never two run."""

import asyncio
import time

import structlog
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.service import RPCError

from configuration.cadences import EXPORT_RESULTS
from models.streams import StreamName

log = structlog.get_logger(__name__)

PAUSE_KNOWN_SECONDS = 5.0
"""For how long the schedule's pause is remembered before it is asked for again."""


class ExportAnnouncer:
    """Triggers the export schedule. With overlap *buffer one*, a trigger that comes while a run is ending starts one
    more after it, and any number of triggers during a run start one more between them: no result waits for the next
    tick, and no two runs go at a time. An operator's pause is kept: then results wait.
    """

    def __init__(self, client: Client) -> None:
        self._schedule = client.get_schedule_handle(EXPORT_RESULTS)
        self._one_at_a_time = asyncio.Lock()
        self._wanted = 0
        self._done = 0
        self._paused = False
        self._pause_asked_at = float("-inf")

    async def results_are_ready(self) -> None:
        """Returns when a trigger that came after this call has reached Temporal. Where Temporal is away, the next tick
        of the schedule does the same work, so this only logs.
        """
        self._wanted += 1
        mine = self._wanted
        async with self._one_at_a_time:
            if self._done >= mine:
                return
            covered = self._wanted
            try:
                if not await self._is_paused():
                    await self._schedule.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)
            except RPCError as error:
                log.warning("export.not_triggered", stream=StreamName.RESULTS, error=error.message)
            self._done = covered

    async def _is_paused(self) -> bool:
        if time.monotonic() - self._pause_asked_at > PAUSE_KNOWN_SECONDS:
            self._paused = (await self._schedule.describe()).schedule.state.paused
            self._pause_asked_at = time.monotonic()
        return self._paused
