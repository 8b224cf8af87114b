"""Closes overdue requests and makes callbacks."""

import time

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from configuration.timing import RENEW_SECONDS
from fulfilment.callback_store import callbacks_due
from fulfilment.callbacks import CallbackSender
from fulfilment.callbacks_in_flight import CallbacksInFlight
from fulfilment.request_store import expire_overdue, group_state, mark_groups_fulfilled, mark_groups_seen
from models.outcomes import CallbackOutcome, GroupState
from models.streams import BatchRef
from orchestration.resident import Resident, earlier_progress, heartbeating, resident
from storage.attendance import CALLBACKS, Attendance
from storage.notices import FINISHED, NotificationListener

CALLING_SECONDS = 1.0
"""How often to look for further callbacks while some are in flight, should no notice come."""
ATTENDS_SECONDS = 60.0
"""How long a run attends after the last callback. A request that finishes later gets its callback after its group's
next look, which comes within 60 s."""


class FulfilmentActivities:
    """Safe to run twice: only open requests are closed, and a repeated callback has the same id."""

    def __init__(self, engine: AsyncEngine, sender: CallbackSender, listener: NotificationListener) -> None:
        self._engine = engine
        self._sender = sender
        self._listener = listener

    @activity.defn
    async def settle_groups(self, groups: BatchRef) -> GroupState:
        """Close overdue requests and count outstanding ones. Record this look, or that the groups are fulfilled."""
        async with heartbeating(), self._engine.begin() as connection:
            await expire_overdue(connection, groups)
            state = await group_state(connection, groups)
            await (mark_groups_fulfilled if state.is_settled else mark_groups_seen)(connection, groups)
        return state

    @activity.defn
    async def make_callbacks(self) -> CallbackOutcome:
        """Make the callbacks of all groups as they become due.

        A callback that its receiver does not accept is tried again later, until it is given up. Returns when none was
        due for `ATTENDS_SECONDS`, and at once if another run makes the callbacks.
        """
        outcome = earlier_progress(CallbackOutcome) or CallbackOutcome()
        async with resident(self._listener, FINISHED) as here:
            await self._attend(outcome, here)
        return outcome

    async def _attend(self, outcome: CallbackOutcome, here: Resident) -> None:
        attendance = Attendance(self._engine, CALLBACKS, activity.info().workflow_id or "")
        calls = CallbacksInFlight(self._engine, self._sender, outcome)
        last_at = time.monotonic()
        told = outcome.model_copy()
        try:
            while await attendance.renew_in_time():
                if here.is_over:
                    await calls.finish()
                    outcome.unfinished = True
                    return
                await calls.start_due()
                if outcome != told:
                    told = outcome.model_copy()
                    here.beat(outcome)
                if len(calls):
                    last_at = time.monotonic()
                elif time.monotonic() - last_at > ATTENDS_SECONDS and await attendance.leave_unless(_is_one_due):
                    return
                await here.wait(RENEW_SECONDS if not len(calls) else CALLING_SECONDS, calls.ended)
        finally:
            await calls.cancel()


async def _is_one_due(connection: AsyncConnection) -> bool:
    return bool(await callbacks_due(connection, 1))
