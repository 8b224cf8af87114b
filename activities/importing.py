"""Applies results and snapshots that arrive in the request network."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from configuration.timing import RENEW_SECONDS
from exchange.transfer.incoming import first_unapplied, unapplied
from fulfilment.applying import ResultApplier
from fulfilment.snapshots import apply_snapshot
from models.outcomes import ApplyOutcome
from models.streams import BatchRef, StreamName
from orchestration.resident import Resident, earlier_progress, heartbeating, resident
from storage.attendance import RESULTS, Attendance
from storage.notices import NotificationListener, received

ATTENDS_SECONDS = 600.0
"""How long a run attends after the last batch of results. This costs a heartbeat every few seconds. It saves a request
that comes within this time the start of a workflow: measured, some 40 ms."""


class ImportActivities:
    """Safe to run twice: one transaction applies a batch and marks it as applied, and an existing result stays."""

    def __init__(self, engine: AsyncEngine, listener: NotificationListener) -> None:
        self._engine = engine
        self._results = ResultApplier(engine)
        self._listener = listener

    @activity.defn
    async def apply_and_attend(self, batch: BatchRef) -> ApplyOutcome:
        """Apply all stored batches of the stream in order, each in one transaction.

        Also apply later batches of results, until none has come for `ATTENDS_SECONDS`. If another run attends to
        results, return at once: that run applies this batch too.
        """
        if batch.stream is not StreamName.RESULTS:
            return await self._apply_snapshots(batch)
        outcome = earlier_progress(ApplyOutcome) or ApplyOutcome()
        async with resident(self._listener, received(batch.stream)) as here:
            await self._attend_to_results(outcome, here)
        return outcome

    async def _attend_to_results(self, outcome: ApplyOutcome, here: Resident) -> None:
        attendance = Attendance(self._engine, RESULTS, activity.info().workflow_id or "")
        last_batch_at = time.monotonic()

        async def progress(done: ApplyOutcome) -> None:
            here.beat(done)
            await attendance.renew_in_time()

        while await attendance.renew_in_time():
            before = outcome.batches
            await self._results.apply_stored(outcome, progress, lambda: not here.is_over)
            if here.is_over:
                outcome.unfinished = True
                return
            if outcome.batches > before:
                last_batch_at = time.monotonic()
            elif time.monotonic() - last_batch_at > ATTENDS_SECONDS and await attendance.leave_unless(_is_one_stored):
                return
            await here.wait(RENEW_SECONDS)

    async def _apply_snapshots(self, newest: BatchRef) -> ApplyOutcome:
        outcome = ApplyOutcome()
        async with heartbeating() as beat:
            before = -1
            while outcome.batches > before and (waiting := await self._waiting(newest)):
                before = outcome.batches
                for batch in waiting:
                    await apply_snapshot(self._engine, batch, outcome)
                    beat(outcome)
        return outcome

    async def _waiting(self, newest: BatchRef) -> list[BatchRef]:
        async with self._engine.connect() as connection:
            found = await unapplied(connection, newest.stream)
        return [batch for batch in found if (batch.epoch, batch.sequence) <= (newest.epoch, newest.sequence)]


async def _is_one_stored(connection: AsyncConnection) -> bool:
    return await first_unapplied(connection, StreamName.RESULTS) is not None
