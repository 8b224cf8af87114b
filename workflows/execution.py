"""Executes requests in the response network, one range of batches at a time."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.executing import ExecutionActivities
    from models.outcomes import ExecutionOutcome
    from models.streams import BatchRef
    from workflows.timing import WHOLE_BATCH


@workflow.defn
class ExecuteRequests:
    """Execute each request of these batches, which were pulled together, and store a result for it."""

    @workflow.run
    async def run(self, batches: BatchRef) -> ExecutionOutcome:
        outcome = await workflow.execute_activity_method(
            ExecutionActivities.execute_batches, batches, summary=batches.summary, **WHOLE_BATCH
        )
        workflow.set_current_details(f"{batches}: {outcome}")
        return outcome
