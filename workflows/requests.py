"""Requests in the response network: pulled for ever, executed batch by batch."""

import asyncio

from temporalio import workflow
from temporalio.exceptions import ActivityError, WorkflowAlreadyStartedError

with workflow.unsafe.imports_passed_through():
    from activities.executing import ExecutionActivities
    from activities.pulling import PullActivities
    from models.outcomes import ExecutionOutcome, PullProgress
    from models.streams import BatchRef
    from workflows.search_attributes import search_attributes
    from workflows.timing import OVER_THE_LINK, WHILE_STOPPED, WHOLE_BATCH


@workflow.defn
class ExecuteRequests:
    """Run each request of a batch through its executor and store a result for every one."""

    @workflow.run
    async def run(self, batch: BatchRef) -> ExecutionOutcome:
        workflow.set_current_details(f"{batch}: executing {batch.records} records")
        outcome = await workflow.execute_activity_method(
            ExecutionActivities.execute_batch, batch, summary=f"{batch}: {batch.records} records", **WHOLE_BATCH
        )
        workflow.set_current_details(f"{batch}: {outcome}")
        return outcome


@workflow.defn
class PullRequests:
    """Long-poll the request network, accept batches and start the execution of each; for ever."""

    @workflow.run
    async def run(self, progress: PullProgress) -> None:
        starting: list[asyncio.Task[None]] = []
        recover = True
        while not workflow.info().is_continue_as_new_suggested():
            workflow.set_current_details(str(progress))
            try:
                batches = await workflow.execute_activity_method(
                    PullActivities.pull_requests, recover, summary="wait for requests", **OVER_THE_LINK
                )
            except ActivityError as error:
                workflow.set_current_details(f"{progress}. Stopped: {error.cause}")
                await workflow.sleep(WHILE_STOPPED)
                continue
            recover = not batches
            starting = [task for task in starting if not task.done()]
            starting += [asyncio.create_task(self._execute(batch)) for batch in batches]
            progress.batches += len(batches)
            progress.records += sum(batch.records for batch in batches)
        await asyncio.gather(*starting)
        workflow.continue_as_new(progress)

    async def _execute(self, batch: BatchRef) -> None:
        """Start the execution of a batch; it may run already when this one was given to be on the safe side."""
        try:
            await workflow.start_child_workflow(
                ExecuteRequests.run,
                batch,
                id=batch.workflow_id("execute"),
                parent_close_policy=workflow.ParentClosePolicy.ABANDON,
                search_attributes=search_attributes(batch),
                static_summary=f"{batch}: {batch.records} records",
            )
        except WorkflowAlreadyStartedError:
            workflow.logger.info("execution.already_running", extra={"batch": str(batch)})
