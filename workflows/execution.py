"""Requests executed in the response network, batch by batch."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.executing import ExecutionActivities
    from models.outcomes import ExecutionOutcome
    from models.streams import BatchRef
    from workflows.brief import done
    from workflows.timing import WHOLE_BATCH


@workflow.defn
class ExecuteRequests:
    """Run each request of a batch, or of several that came together, through its executor; store a result for each."""

    @workflow.run
    async def run(self, batch: BatchRef) -> ExecutionOutcome:
        workflow.set_current_details(f"{batch}: executing {batch.records} records")
        summary = f"{batch}: {batch.records} records"
        outcome = await done(ExecutionActivities.execute_batch, batch, summary, WHOLE_BATCH)
        workflow.set_current_details(f"{batch}: {outcome}")
        return outcome
