"""Finds the workflow run of each step in a request's trace. It asks Temporal, and never guesses from a name."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from temporalio.client import Client, WorkflowExecution
from temporalio.service import RPCError

from models.streams import Network, named_by
from models.traces import Trace, TraceStep

RPC_SECONDS = timedelta(seconds=2)
"""A caller waits for the trace. Without Temporal it has everything but the runs."""
CLOCKS = timedelta(seconds=1)
"""How much the clocks of Temporal and PostgreSQL may differ."""
MOST_BATCHES = 500
"""Batches of one run at most. Its search attribute names the last of them."""
BY_BATCH = ("ExecuteRequests", "FulfillRequests")
"""Workflows whose ids name their batches. Of each other type, one run at a time works."""


async def with_runs(client: Client, network: Network, trace: Trace) -> Trace:
    """The same trace with the workflow id and the run id of each step of this network.

    They stay unknown when Temporal does not answer, and for runs that it no longer keeps.
    """
    try:
        named = await asyncio.gather(*(_named(client, network, step) for step in trace.steps))
    except (RPCError, RuntimeError):  # RuntimeError: a lazy client that cannot connect
        return trace
    return trace.model_copy(update={"steps": named})


async def _named(client: Client, network: Network, step: TraceStep) -> TraceStep:
    if step.network is not network or step.workflow is None or step.at is None:
        return step
    seen = [each async for each in client.list_workflows(_query(step, step.at), rpc_timeout=RPC_SECONDS)]
    run = run_of(step, seen)
    return step.model_copy(update={"workflow_id": run.id, "run_id": run.run_id}) if run else step


def _query(step: TraceStep, at: datetime) -> str:
    kind = f"WorkflowType = '{step.workflow}'"
    if step.workflow in BY_BATCH:
        stream, _, sequence = _place(step)
        return (
            f"{kind} AND AirlockStream = '{stream}' AND AirlockBatch >= {sequence - MOST_BATCHES}"
            f" AND AirlockBatch < {sequence + MOST_BATCHES}"
        )
    earliest, latest = (f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}" for moment in (at - CLOCKS, at + CLOCKS))
    return f"{kind} AND StartTime <= '{latest}' AND (ExecutionStatus = 'Running' OR CloseTime >= '{earliest}')"


def run_of(step: TraceStep, runs: Iterable[WorkflowExecution]) -> WorkflowExecution | None:
    """The run that did the step: the newest run of its batch, or else the newest run that started before the step."""
    assert step.at is not None
    if step.workflow in BY_BATCH:
        about = [run for run in runs if _is_about(run, step)]
        return max(about, key=lambda run: run.start_time, default=None)
    in_order = sorted(runs, key=lambda run: run.start_time)
    begun = [run for run in in_order if run.start_time <= step.at]
    return begun[-1] if begun else in_order[0] if in_order else None


def _is_about(run: WorkflowExecution, step: TraceStep) -> bool:
    _, epoch, sequence = _place(step)
    batches = named_by(run.id)
    return batches is not None and batches.epoch == epoch and batches.begin <= sequence <= batches.sequence


def _place(step: TraceStep) -> tuple[str, int, int]:
    """Stream, epoch and number of the step's batch."""
    stream, _, place = (step.batch or "").partition(" ")
    epoch, _, sequence = place.partition(".")
    return stream, int(epoch), int(sequence)
