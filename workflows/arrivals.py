"""The request network's two workflows, both started by the API when something comes in."""

from datetime import timedelta
from itertools import chain, repeat

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.fulfilling import FulfilmentActivities
    from activities.importing import ImportActivities
    from activities.maintaining import MaintenanceActivities
    from models.outcomes import ApplyOutcome, GroupState
    from models.streams import BatchRef, StreamName
    from workflows.timing import CALL_BACK_AGAIN, LOOK_AGAIN, OVER_THE_LINK, QUICK, first_look


@workflow.defn
class ImportBatch:
    """Apply a batch that was accepted, refresh the cache and wake those who wait.

    A health batch, which comes every few minutes, is also the occasion to tend this side: it has no schedules.
    """

    @workflow.run
    async def run(self, batch: BatchRef) -> ApplyOutcome:
        outcome = await workflow.execute_activity_method(
            ImportActivities.apply_batches, batch, summary=f"{batch}: {batch.records} records", **QUICK
        )
        workflow.set_current_details(f"{batch}: {outcome}")
        if batch.stream is StreamName.HEALTH:
            tended = await workflow.execute_activity_method(
                MaintenanceActivities.tend, summary="stale cache keys, old records", **OVER_THE_LINK
            )
            workflow.set_current_details(f"{batch}: {outcome}; {tended}")
        return outcome


@workflow.defn
class FulfillRequests:
    """See a group of requests from submission to results or deadlines, then make the callbacks that were asked for.

    Unless it has callbacks to make, its start is delayed until `first_look`: a group that is answered at once, as most
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
        for look_in in chain(LOOK_AGAIN, repeat(LOOK_AGAIN[-1])):
            self._results_arrived = False
            state = await workflow.execute_activity_method(
                FulfilmentActivities.settle_group, group, summary="what is outstanding", **QUICK
            )
            workflow.set_current_details(str(state))
            if state.callbacks_due:
                await self._call_back(group)
            if not state.outstanding:
                return state
            if workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(group)
            await self._wait(min(look_in, first_look(state.next_deadline_in)))
        raise AssertionError("the loop only returns")

    async def _wait(self, seconds: float) -> None:
        """Until something of the group was finished, or for so long."""
        try:
            await workflow.wait_condition(lambda: self._results_arrived, timeout=timedelta(seconds=seconds))
        except TimeoutError:
            pass

    async def _call_back(self, group: BatchRef) -> None:
        """Rounds of callbacks until all are delivered or given up."""
        rounds = 0
        while True:
            outcome = await workflow.execute_activity_method(
                FulfilmentActivities.call_back, group, summary="callbacks", **OVER_THE_LINK
            )
            if not outcome.due:
                return
            workflow.set_current_details(f"{outcome.due} callbacks not taken, trying again")
            await workflow.sleep(CALL_BACK_AGAIN[min(rounds, len(CALL_BACK_AGAIN) - 1)])
            rounds += 1
