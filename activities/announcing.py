"""Word that results are ready: to the export that is under way or, where there is none, to its schedule."""

import asyncio
import time
from datetime import timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client, ScheduleOverlapPolicy
from temporalio.service import RPCError, RPCStatusCode

from configuration.cadences import EXPORT_RESULTS
from models.streams import StreamName
from storage.database import autocommit, is_unreachable
from storage.outgoing import delivering_runs, is_outstanding
from storage.standby import GRACE_SECONDS, ready, somebody_stands_by

log = structlog.get_logger(__name__)

PAUSE_KNOWN_SECONDS = 5.0
"""For how long the schedule's pause is remembered before it is asked for again."""
PAUSE_ASKED = timedelta(seconds=2)
"""For Temporal to say; after it the pause is taken to be as it was."""
STARTING_SECONDS = 2.0
"""For how long a triggered run is taken to be about to start: it has not looked into the outbox yet."""
SIGNAL = "results_are_ready"


class ExportAnnouncer:
    """No result waits for the next tick of the schedule, and no two runs go at a time.

    A run that is under way is signalled: Temporal lets no workflow end over a signal that it has not seen. Where there
    is none, the schedule is triggered with overlap *buffer one*, so that even then a run waits for the one before. An
    operator's pause is kept: then results wait.

    A run that stands by has heard of the results with their commit. It is told only of what it has not sent in
    `GRACE_SECONDS`.
    """

    def __init__(self, client: Client, engine: AsyncEngine, partitions: int = 1) -> None:
        """``partitions``: of results. Of several no run stands by."""
        self._client = client
        self._engine = engine
        self._partitions = partitions
        self._schedule = client.get_schedule_handle(EXPORT_RESULTS)
        self._one_at_a_time = asyncio.Lock()
        self._wanted = 0
        self._done = 0
        self._paused = False
        self._pause_asked_at = float("-inf")
        self._triggered_after: dict[str, str] | None = None
        self._triggered_at = float("-inf")
        self._finishing = asyncio.Event()
        self._to_look_after = False
        self._looking_after: asyncio.Task[None] | None = None

    async def results_are_ready(self) -> None:
        """Call after the results are committed. Returns when word of them has reached Temporal, or who stands by. Where
        Temporal is away, the next tick of the schedule does the same work, so this only logs.
        """
        self._wanted += 1
        mine = self._wanted
        async with self._one_at_a_time:
            if self._done >= mine:
                return
            covered = self._wanted
            try:
                await self._announce()
            except RPCError as error:
                log.warning("export.not_announced", stream=StreamName.RESULTS, error=error.message)
            self._done = covered

    async def finish(self) -> None:
        """Look now after what was to be looked after later: this worker stops."""
        self._finishing.set()
        if self._looking_after is not None:
            await asyncio.wait((self._looking_after,))

    async def _announce(self) -> None:
        if await self.is_paused():
            return
        if self._partitions > 1 or not await self._is_stood_by():
            await self._tell()
            return
        self._to_look_after = True
        if self._looking_after is None or self._looking_after.done():
            self._looking_after = asyncio.create_task(self._look_after())

    async def _is_stood_by(self) -> bool:
        async with autocommit(self._engine) as connection:
            return await somebody_stands_by(connection, ready(StreamName.RESULTS))

    async def _look_after(self) -> None:
        """Tell Temporal of what whoever stands by does not send in time."""
        while self._to_look_after:
            self._to_look_after = False
            try:
                async with asyncio.timeout(GRACE_SECONDS):
                    await self._finishing.wait()
            except TimeoutError:
                pass
            try:
                await self._tell_of_the_left()
            except Exception as error:
                if not isinstance(error, RPCError) and not is_unreachable(error):
                    raise
                log.warning("export.not_announced", stream=StreamName.RESULTS, error=str(error))

    async def _tell_of_the_left(self) -> None:
        """Where something has not been sent in time or, if this worker stops, at all."""
        if await self.is_paused():
            return
        async with autocommit(self._engine) as connection:
            late = 0.0 if self._finishing.is_set() else GRACE_SECONDS
            left = await is_outstanding(connection, StreamName.RESULTS, late)
        if left:
            async with self._one_at_a_time:
                await self._tell()

    async def _tell(self) -> None:
        """Signal the run that is under way, or trigger one."""
        async with autocommit(self._engine) as connection:
            runs = await delivering_runs(connection, StreamName.RESULTS)
        # One run, but for the moment in which it has not begun with every partition.
        for run in dict.fromkeys(runs.values()):
            if await self._signalled(run):
                return
        if runs == self._triggered_after and time.monotonic() - self._triggered_at < STARTING_SECONDS:
            return  # the run that was triggered has yet to look into the outbox, and will find these results there
        await self._schedule.trigger(overlap=ScheduleOverlapPolicy.BUFFER_ONE)
        self._triggered_after, self._triggered_at = runs, time.monotonic()

    async def _signalled(self, run: str) -> bool:
        """Whether this run still goes on, and now knows that there is more."""
        try:
            await self._client.get_workflow_handle(run).signal(SIGNAL)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def is_paused(self) -> bool:
        """Whether an operator paused the schedule: as it was `PAUSE_KNOWN_SECONDS` ago at most or, while Temporal is
        away, when it was asked last.
        """
        if time.monotonic() - self._pause_asked_at > PAUSE_KNOWN_SECONDS:
            self._pause_asked_at = time.monotonic()
            try:
                self._paused = (await self._schedule.describe(rpc_timeout=PAUSE_ASKED)).schedule.state.paused
            except RPCError as error:
                log.warning("export.pause_unknown", taken_for=self._paused, error=error.message)
        return self._paused
