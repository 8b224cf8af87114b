"""Applies batches that arrive in the request network; started by the API.

It is alone in its module: the sandbox loads a workflow's module again for each run, while a caller waits.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.importing import ImportActivities
    from activities.maintaining import MaintenanceActivities
    from models.outcomes import ApplyOutcome
    from models.streams import BatchRef, StreamName
    from workflows.timing import OVER_THE_LINK, RESIDENT


@workflow.defn
class ImportBatch:
    """Apply a received batch, and attend to its stream for a while: this run also applies the batches that follow.

    The request network has no schedules, so a health batch, which comes every few minutes, also starts maintenance.
    """

    @workflow.run
    async def run(self, batch: BatchRef) -> ApplyOutcome:
        total = ApplyOutcome(unfinished=True)
        while total.unfinished:
            outcome = await workflow.execute_activity_method(
                ImportActivities.apply_and_attend,
                batch,
                summary=f"apply {batch}, and what follows it",
                **RESIDENT,
            )
            total = total.plus(outcome)
            workflow.set_current_details(f"{batch} and what followed: {total}")
            if total.unfinished and workflow.info().is_continue_as_new_suggested():
                workflow.continue_as_new(batch)
        if batch.stream is StreamName.HEALTH:
            tended = await workflow.execute_activity_method(
                MaintenanceActivities.tend, summary="stale cache keys, old records", **OVER_THE_LINK
            )
            workflow.set_current_details(f"{batch}: {total}; {tended}")
        return total
