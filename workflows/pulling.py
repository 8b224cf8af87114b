"""Pulls requests into the response network, for ever."""

from temporalio import workflow
from temporalio.exceptions import ActivityError, is_cancelled_exception

with workflow.unsafe.imports_passed_through():
    from activities.pulling import PullActivities
    from models.outcomes import PullProgress
    from workflows.timing import RESIDENT, WHILE_STOPPED


@workflow.defn
class PullRequests:
    """Long-poll the request network, store batches and start their execution, for ever."""

    @workflow.run
    async def run(self, progress: PullProgress) -> None:
        while not workflow.info().is_continue_as_new_suggested():
            workflow.set_current_details(str(progress))
            try:
                progress = await workflow.execute_activity_method(
                    PullActivities.pull_requests, progress, summary="pull, store, start execution", **RESIDENT
                )
            except ActivityError as error:
                if is_cancelled_exception(error):
                    raise
                workflow.set_current_details(f"{progress}. Stopped: {error.cause}")
                await workflow.sleep(WHILE_STOPPED)
        workflow.continue_as_new(progress)
