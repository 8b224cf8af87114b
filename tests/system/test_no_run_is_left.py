"""Workers are stopped and killed during long work, a link hangs and a table is locked, all in one Airlock. Each request
is answered soon after the workers are back, and no workflow is left running that should not be.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client

from chaos.leftovers import left_running
from chaos.proxy import Hang
from chaos.running import Airlock
from tests.system.running import eventually, result, submit
from tests.workflows.record_histories import replay_all

LASTS = 15.0
"""Seconds that an execution, the hanging link and the lock last: longer than a heartbeat time-out."""
ANSWERED_WITHIN = 30.0
"""Seconds from when all is well again."""
SLOW = {
    "name": "slow",
    "description": "takes its time",
    "params_schema": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"]},
    "limits": {"rows": 1, "timeout": 60},
    "executor": {
        "kind": "sql",
        "source": "sample",
        "query": f"SELECT CAST(:number AS int) AS number, pg_sleep({LASTS}) IS NULL AS slept",
    },
}
QUICK = {"type": "airport", "params": {"iata": "IST"}}


def slow(number: int) -> dict[str, Any]:
    return {"type": "slow", "params": {"number": number}}


@pytest.fixture
async def harmed(tmp_path: Path) -> AsyncIterator[Airlock]:
    """An Airlock with a proxy in its link."""
    airlock = Airlock(tmp_path)
    try:
        await airlock.start()
        yield airlock
    finally:
        assert await airlock.stop() == ""


async def know_the_slow_type(airlock: Airlock, http: httpx.AsyncClient) -> None:
    up = airlock.up
    headers = {"Authorization": f"Bearer {up['operator_key']}"}
    async with httpx.AsyncClient(base_url=up["response_api"], headers=headers, trust_env=False) as operator:
        (await operator.post("/v1/request-types", json=SLOW)).raise_for_status()
        (await operator.post("/v1/schedules/export-settings/trigger")).raise_for_status()

    async def is_known() -> bool:
        return "slow" in (await http.get("/v1/request-types")).text

    await eventually(is_known, "the request network knows the type")


@asynccontextmanager
async def hit(airlock: Airlock, network: str, number: signal.Signals) -> AsyncIterator[None]:
    """Signal a worker; after the block wait until it is ready again."""
    pid = airlock.pid(f"{network}-worker")
    assert pid is not None
    ready = airlock.home / f"worker-{network}.ready"
    os.kill(pid, number)
    yield

    async def is_back() -> bool:
        return ready.exists() and ready.read_text().strip() not in ("", str(pid))

    await eventually(is_back, f"the {network} worker is back")


def executing(client: Client, attempt: int) -> Callable[[], Awaitable[bool]]:
    """Whether this attempt of an execution, or a later one, is under way."""

    async def look() -> bool:
        async for run in client.list_workflows("WorkflowType = 'ExecuteRequests' AND ExecutionStatus = 'Running'"):
            described = await client.get_workflow_handle(run.id, run_id=run.run_id).describe()
            if any(
                pending.attempt >= attempt and pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_STARTED
                for pending in described.raw_description.pending_activities
            ):
                return True
        return False

    return look


async def test_each_request_is_answered_and_no_run_is_left(harmed: Airlock) -> None:
    client = await Client.connect(harmed.up["temporal"], namespace="response")
    async with harmed.caller() as http:
        await know_the_slow_type(harmed, http)
        ids = await submit(http, slow(1), slow(2))
        await eventually(executing(client, 1), "the slow requests are executed")

        with harmed.harm(Hang()):
            hangs_until = time.monotonic() + LASTS
            async with hit(harmed, "response", signal.SIGKILL), hit(harmed, "request", signal.SIGTERM):
                ids += await submit(http, QUICK, QUICK)
            await eventually(executing(client, 2), "another worker executes them from the start")
            await asyncio.sleep(max(0.0, hangs_until - time.monotonic()))

        locking = await asyncpg.connect(harmed.up["databases"]["request"])
        async with locking.transaction():
            await locking.execute("LOCK TABLE results")
            locked_until = time.monotonic() + LASTS
            async with hit(harmed, "response", signal.SIGTERM), hit(harmed, "request", signal.SIGKILL):
                ids += await submit(http, QUICK, slow(3))
            await asyncio.sleep(max(0.0, locked_until - time.monotonic()))
        await locking.close()

        async with asyncio.timeout(ANSWERED_WITHIN):
            for request_id in ids:
                assert (await result(http, request_id))["status"] == "completed"

    async def none_is_left() -> bool:
        return not await left_running(harmed.up)

    await eventually(none_is_left, "no workflow runs that should not")
    for namespace in harmed.up["namespaces"].values():
        await replay_all(harmed.up["temporal"], namespace)
