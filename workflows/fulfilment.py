"""Groups of requests in the request network, from submission to their end; started by the API when one is committed."""

from datetime import timedelta
from itertools import chain, repeat

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.fulfilling import FulfilmentActivities
    from models.outcomes import CallbackOutcome, GroupState
    from models.streams import BatchRef
    from workflows.brief import done
    from workflows.timing import CALL_BACK_AGAIN, LOOK_AGAIN, OVER_THE_LINK, QUICK, until_look


@workflow.defn
class FulfillRequests:
    """See a group of requests from submission to results or deadlines, then make the callbacks that were asked for.

    Unless it has callbacks to make, its start is delayed by `first_look`: a group that is answered at once, as most
    are, then costs a single look, and none while its owners wait.
    """

    def __init__(self) -> None:
        self._results_arrived = False

    @workflow.signal
    def results_arrived(self) -> None:
        """Something of this group was finished: look at it."""
        self._results_arrived = True

    @workflow.run
    async def run(self, group: BatchRef) -> GroupState:
        patience = chain(LOOK_AGAIN, repeat(LOOK_AGAIN[-1]))
        backoff = chain(CALL_BACK_AGAIN, repeat(CALL_BACK_AGAIN[-1]))
        while True:
            self._results_arrived = False
            state = await done(FulfilmentActivities.settle_group, group, "what is outstanding", QUICK)
            workflow.set_current_details(str(state))
            if not state.outstanding and not state.callbacks_due:
                return state
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(group)
            called = await self._call_back(group) if state.callbacks_due else CallbackOutcome()
            if called.delivered + called.given_up and not called.due:
                continue  # nothing failed: there may be more than one round makes
            waits = [until_look(next(patience), state.next_deadline_in)] if state.outstanding else []
            await self._wait(min(waits + ([next(backoff)] if state.callbacks_due else [])))

    async def _wait(self, seconds: float) -> None:
        """Until something of the group was finished, or for so long."""
        try:
            await workflow.wait_condition(lambda: self._results_arrived, timeout=timedelta(seconds=seconds))
        except TimeoutError:
            pass

    async def _call_back(self, group: BatchRef) -> CallbackOutcome:
        """One round. What is not taken comes again with the next look, so that it holds back nobody's deadline."""
        outcome = await workflow.execute_activity_method(
            FulfilmentActivities.call_back, group, summary="callbacks", **OVER_THE_LINK
        )
        if outcome.due:
            workflow.set_current_details(f"{outcome.due} callbacks not taken, trying again")
        return outcome
