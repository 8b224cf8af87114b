"""Follows groups of requests in the request network until all are finished; started by the API."""

import asyncio
from datetime import timedelta

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.fulfilling import FulfilmentActivities
    from models.looks import until_look
    from models.outcomes import CallbackOutcome, GroupState
    from models.streams import BatchRef
    from workflows.timing import QUICK, RESIDENT


@workflow.defn
class FulfillRequests:
    """Close requests of these groups at their deadlines and make their callbacks, until nothing is open.

    Most groups are answered before the first look, 5 s after their submission, and cost only that look. One run at a
    time makes the callbacks of all groups; the others wait for it.
    """

    def __init__(self) -> None:
        self._calling: asyncio.Task[None] | None = None
        self._called = CallbackOutcome()

    @workflow.run
    async def run(self, groups: BatchRef) -> GroupState:
        look = 1  # look 0 was the delay of the start
        while True:
            state = await workflow.execute_activity_method(
                FulfilmentActivities.settle_groups, groups, summary="close what is overdue, count the rest", **QUICK
            )
            workflow.set_current_details(str(state))
            if state.callbacks_wanted and (self._calling is None or self._calling.done()):
                self._calling = asyncio.create_task(self._make_callbacks())
            if state.is_settled:
                if self._calling is not None:
                    await self._calling
                return state
            if workflow.info().is_continue_as_new_suggested() and (self._calling is None or self._calling.done()):
                workflow.continue_as_new(groups)
            await workflow.sleep(timedelta(seconds=until_look(look, state.next_deadline_in)))
            look += 1

    async def _make_callbacks(self) -> None:
        """Make the callbacks of all groups until none was due for a while, or another run makes them."""
        while True:
            outcome = await workflow.execute_activity_method(
                FulfilmentActivities.make_callbacks, summary="make callbacks as requests finish", **RESIDENT
            )
            if not outcome.unfinished or workflow.info().is_continue_as_new_suggested():
                return
