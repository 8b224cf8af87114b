"""Which workflows run and should not: asked of Temporal, judged by what PostgreSQL says of their work."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from temporalio.client import Client

from models.streams import PULL_WORKFLOW_ID, named_by
from monitoring.stuck_workflows import find_stuck

CONNECT_SECONDS = 20.0


async def left_running(up: Mapping[str, Any]) -> list[str]:
    """A sentence for each of them; ``up`` is the content of `up.json`. Ask again about what has only just begun.

    When all requests are answered, there may be: the pull loop; one `ExportResults`, which owns its interval; runs that
    attend to results or callbacks; and `FulfillRequests` of groups that they have not seen fulfilled yet. A run whose
    workflow task fails is none of these.

    Raises `RPCError`, `RuntimeError`, `OSError`, `TimeoutError` or `asyncpg.PostgresError` if a server does not answer.
    """
    attendants, unfulfilled = await _at_work(up["databases"]["request"])
    found: list[str] = []
    for network in ("response", "request"):
        client = await Client.connect(up["temporal"], namespace=up["namespaces"][network])
        exports = 0
        async for run in client.list_workflows("ExecutionStatus = 'Running'"):
            match run.workflow_type:
                case "PullRequests":
                    is_wanted = run.id == PULL_WORKFLOW_ID
                case "ExportResults":
                    exports += 1
                    is_wanted = exports == 1
                case "FulfillRequests":
                    is_wanted = run.id in attendants or _has_one_of(run.id, unfulfilled)
                case _:
                    is_wanted = run.id in attendants
            if not is_wanted:
                found.append(f"{run.workflow_type} {run.id} runs since {run.start_time:%H:%M:%S} in {network}")
        found += [f"{each.workflow} {each.id}: {each.reason}" for each in await find_stuck(client, {})]
    return sorted(found)


async def _at_work(database: str) -> tuple[set[str], set[tuple[int, int]]]:
    """Workflow ids of runs that attend, and the epoch and number of each group that is not fulfilled."""
    connection = await asyncpg.connect(database, timeout=CONNECT_SECONDS)
    try:
        attend = await connection.fetch("SELECT attendant FROM attendances WHERE attended_until >= clock_timestamp()")
        groups = await connection.fetch("SELECT epoch, sequence FROM request_groups WHERE fulfilled_at IS NULL")
    finally:
        await connection.close()
    return {row[0] for row in attend}, {(row[0], row[1]) for row in groups}


def _has_one_of(workflow_id: str, groups: set[tuple[int, int]]) -> bool:
    named = named_by(workflow_id)
    return named is not None and any(
        epoch == named.epoch and named.begin <= sequence <= named.sequence for epoch, sequence in groups
    )
