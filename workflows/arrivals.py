"""What arrives in the request network; started by the API when it comes in.

One workflow to a module: the sandbox loads the module of a workflow afresh for each run, while its caller waits.
"""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.importing import ImportActivities
    from activities.maintaining import MaintenanceActivities
    from models.outcomes import ApplyOutcome
    from models.streams import BatchRef, StreamName
    from workflows.brief import done, stands_by
    from workflows.timing import ARRIVALS, OVER_THE_LINK


@workflow.defn
class ImportBatch:
    """Apply a batch that was accepted, refresh the cache and wake those who wait.

    Batches of results that are accepted meanwhile are applied with it, and have no workflow of their own.
    A health batch, which comes every few minutes, is also the occasion to tend this side: it has no schedules.
    """

    @workflow.run
    async def run(self, batch: BatchRef) -> ApplyOutcome:
        outcome = await done(ImportActivities.apply_batches, batch, f"{batch}: {batch.records} records", ARRIVALS)
        workflow.set_current_details(f"{batch}: {outcome}")
        while batch.stream is StreamName.RESULTS and outcome.batches and stands_by():
            summary = "apply at once what comes in the next seconds"
            more = await done(ImportActivities.apply_when_received, batch.stream, summary, ARRIVALS)
            if not more.batches:
                break
            outcome = outcome.plus(more)
            workflow.set_current_details(f"{batch} and what came after it: {outcome}")
        if batch.stream is StreamName.HEALTH:
            tended = await workflow.execute_activity_method(
                MaintenanceActivities.tend, summary="stale cache keys, old records", **OVER_THE_LINK
            )
            workflow.set_current_details(f"{batch}: {outcome}; {tended}")
        return outcome
