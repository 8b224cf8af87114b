"""Finds workflow runs that are stuck: their workflow task keeps failing, or they outlive their bound."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.enums.v1 import EventType
from temporalio.api.workflowservice.v1 import (
    DescribeWorkflowExecutionRequest,
    DescribeWorkflowExecutionResponse,
    GetWorkflowExecutionHistoryReverseRequest,
)
from temporalio.client import Client
from temporalio.client import WorkflowExecution as ListedWorkflow
from temporalio.service import RPCError, RPCStatusCode

from schedules.answers import RPC_TIMEOUT

OLD_ENOUGH = timedelta(seconds=15)
"""Younger runs are left out: their first task may be under way."""
FAILED_ATTEMPTS = 3
"""Failures of one workflow task. A killed worker causes one or two."""
ENDED_AFTER = timedelta(seconds=40)
"""A run whose task fails for this time is terminated, so that another run can do its work."""
MOST_LOOKED_AT = 200
TASK_FAILED = (EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED, EventType.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT)

DEFAULT_BOUND = timedelta(hours=3)
"""For workflow types without a bound of their own."""


@dataclass(frozen=True)
class StuckWorkflow:
    """A run that needs attention. ``reason`` is a sentence; ``is_failing``: it cannot go on by itself."""

    workflow: str
    id: str
    run_id: str
    reason: str
    is_failing: bool
    failing_for: timedelta = timedelta()


async def find_stuck(client: Client, bounds: Mapping[str, timedelta | None]) -> list[StuckWorkflow]:
    """The stuck runs. ``bounds``: workflow type → how long a run may last; None for ever.

    Raises `RPCError` when Temporal does not answer.
    """
    before = datetime.now(UTC) - OLD_ENOUGH
    query = f"ExecutionStatus = 'Running' AND StartTime < '{before:%Y-%m-%dT%H:%M:%SZ}'"
    found: list[StuckWorkflow] = []
    async for listed in client.list_workflows(query, limit=MOST_LOOKED_AT, rpc_timeout=RPC_TIMEOUT):
        described = await _describe(client, listed)
        stuck = described and (await _failing(client, listed, described) or _outlives(listed, described, bounds))
        if stuck:
            found.append(stuck)
    return found


async def _describe(client: Client, listed: ListedWorkflow) -> DescribeWorkflowExecutionResponse | None:
    """None if the run has ended and Temporal no longer keeps it."""
    execution = WorkflowExecution(workflow_id=listed.id, run_id=listed.run_id)
    try:
        return await client.workflow_service.describe_workflow_execution(
            DescribeWorkflowExecutionRequest(namespace=client.namespace, execution=execution), timeout=RPC_TIMEOUT
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise


async def _failing(
    client: Client, listed: ListedWorkflow, described: DescribeWorkflowExecutionResponse
) -> StuckWorkflow | None:
    task = described.pending_workflow_task
    if task.attempt < FAILED_ATTEMPTS:
        return None
    since, why = await _first_task_failure(client, listed)
    failing_for = datetime.now(UTC) - (since or task.original_scheduled_time.ToDatetime(tzinfo=UTC))
    reason = f"its workflow task has failed {task.attempt - 1} times in {failing_for.total_seconds():.0f} s"
    if why:
        reason += f": {why}"
    return StuckWorkflow(listed.workflow_type, listed.id, listed.run_id, reason, True, failing_for)


async def _first_task_failure(client: Client, listed: ListedWorkflow) -> tuple[datetime | None, str | None]:
    """When the task that is tried now failed for the first time, and the first line of what it said.

    Only the first attempt is in the history, where it is one of the newest events. The task's own times are those of
    its latest attempt.
    """
    history = await client.workflow_service.get_workflow_execution_history_reverse(
        GetWorkflowExecutionHistoryReverseRequest(
            namespace=client.namespace,
            execution=WorkflowExecution(workflow_id=listed.id, run_id=listed.run_id),
            maximum_page_size=10,
        ),
        timeout=RPC_TIMEOUT,
    )
    for event in history.history.events:
        if event.event_type in TASK_FAILED:
            why = event.workflow_task_failed_event_attributes.failure.message.partition("\n")[0][:300]
            return event.event_time.ToDatetime(tzinfo=UTC), why or None
    return None, None


def _outlives(
    listed: ListedWorkflow, described: DescribeWorkflowExecutionResponse, bounds: Mapping[str, timedelta | None]
) -> StuckWorkflow | None:
    bound = bounds.get(listed.workflow_type, DEFAULT_BOUND)
    lasts = datetime.now(UTC) - listed.start_time
    if bound is None or lasts < bound:
        return None
    reason = f"it has run for {lasts.total_seconds():.0f} s, longer than {bound.total_seconds():.0f} s"
    failures = [
        f"{pending.activity_type.name}, attempt {pending.attempt}: {pending.last_failure.message.partition(chr(10))[0]}"
        for pending in described.pending_activities
        if pending.HasField("last_failure")
    ]
    return StuckWorkflow(
        listed.workflow_type, listed.id, listed.run_id, "; ".join([reason, *failures[:3]]), is_failing=False
    )


async def end_failing(client: Client, stuck: StuckWorkflow) -> bool:
    """Terminate a run that has been failing for `ENDED_AFTER`; returns False before that.

    Nothing is lost: another run finds the work in PostgreSQL.
    """
    if not stuck.is_failing or stuck.failing_for < ENDED_AFTER:
        return False
    try:
        await client.get_workflow_handle(stuck.id, run_id=stuck.run_id).terminate(
            reason=f"Airlock: {stuck.reason}. Another run does its work", rpc_timeout=RPC_TIMEOUT
        )
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:  # the run has ended by itself
            raise
    return True
