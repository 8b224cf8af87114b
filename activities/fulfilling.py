"""Groups of requests from submission to their end: what is overdue is closed, and callbacks are made."""

import asyncio
import time

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from fulfilment.callbacks import CallbackSender, callbacks_due
from fulfilment.request_store import expire_overdue, group_state, mark_groups_fulfilled, mark_groups_seen
from models.outcomes import CallbackOutcome, GroupState
from models.streams import BatchRef
from orchestration.resident import Resident, heartbeating, resident
from storage.attendance import CALLBACKS, RENEW_SECONDS, Attendance
from storage.notices import FINISHED, NotificationListener

CALLBACKS_AT_A_TIME = 64
"""Bodies held in memory. Callbacks of a receiver that does not answer hold the others up for so many at most."""
ATTENDS_SECONDS = 60.0
"""How long a run attends after the last callback. What finishes later is called back at its group's next look, which
comes within as long."""


class FulfilmentActivities:
    """Safe to run twice: closing looks at what is open only, and a callback that comes again has the same id."""

    def __init__(self, engine: AsyncEngine, sender: CallbackSender, listener: NotificationListener) -> None:
        self._engine = engine
        self._sender = sender
        self._listener = listener

    @activity.defn
    async def settle_groups(self, groups: BatchRef) -> GroupState:
        """Close what is overdue, count what is outstanding, and record that a run looked, or that nothing is left."""
        async with heartbeating(), self._engine.begin() as connection:
            await expire_overdue(connection, groups)
            state = await group_state(connection, groups)
            await (mark_groups_fulfilled if state.is_settled else mark_groups_seen)(connection, groups)
        return state

    @activity.defn
    async def make_callbacks(self) -> CallbackOutcome:
        """Make the callbacks of finished requests, of whatever group, as they become due; each once.

        What a receiver does not take comes again later, until it is given up. Returns when none has been due for
        `ATTENDS_SECONDS`, and at once where another run makes them.
        """
        earlier = activity.info().heartbeat_details
        outcome = CallbackOutcome.model_validate(earlier[0]) if earlier else CallbackOutcome()
        async with resident(self._listener, FINISHED) as here:
            await self._attend(outcome, here)
        return outcome

    async def _attend(self, outcome: CallbackOutcome, here: Resident) -> None:
        attendance = Attendance(self._engine, CALLBACKS, activity.info().workflow_id or "")
        last_at = time.monotonic()
        while await attendance.renew_in_time():
            async with self._engine.connect() as connection:
                due = await callbacks_due(connection, CALLBACKS_AT_A_TIME)
            await asyncio.gather(*(self._sender.send(callback, outcome) for callback in due))
            if due:
                here.beat(outcome)
            if here.is_over:
                outcome.unfinished = True
                return
            if len(due) == CALLBACKS_AT_A_TIME:
                continue
            if due:
                last_at = time.monotonic()
            elif time.monotonic() - last_at > ATTENDS_SECONDS and await attendance.leave_unless(_is_one_due):
                return
            await here.wait(RENEW_SECONDS)


async def _is_one_due(connection: AsyncConnection) -> bool:
    return bool(await callbacks_due(connection, 1))
