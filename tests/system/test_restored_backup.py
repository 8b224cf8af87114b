"""A backup of one network is restored on a running Airlock: an operator lets the streams go on, and nothing is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from storage.database import connect
from tests.epochs.backups import back_up, restore
from tests.system.running import RunningAirlock, eventually, result, submit
from tests.system.test_faults import request


@pytest.fixture(scope="module")
async def airlock(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningAirlock]:
    """Of these tests alone: a restored backup leaves traces."""
    running = RunningAirlock(tmp_path_factory.mktemp("restored") / "home")
    try:
        await running.start()
        yield running
    finally:
        await running.end()


@pytest.mark.parametrize("network", ["response", "request"])
async def test_a_restored_backup_costs_no_result(airlock: RunningAirlock, network: str) -> None:
    engine = connect(airlock.up["databases"][network], 2, "backup")
    async with airlock.caller() as http, airlock.caller("response") as operator:
        ids = await submit(http, *(request(number) for number in range(20)))
        shown = {request_id: await result(http, request_id) for request_id in ids}
        await back_up(engine)
        since = await submit(http, *(request(number) for number in range(20)))
        shown |= {request_id: await result(http, request_id) for request_id in since}
        changed = await operator.put("/v1/settings/since", json={"value": 1, "visibility": "public"})
        assert changed.status_code // 100 == 2

        async def streams() -> dict[str, dict[str, Any]]:
            return {state["stream"]: state for state in (await operator.get("/v1/streams")).json()["streams"]}

        async def run_all() -> None:
            for schedule in ("export-settings", "export-results", "system-monitoring"):
                assert (await operator.post(f"/v1/schedules/{schedule}/trigger")).status_code == 202

        await run_all()
        await eventually(lambda: all_delivered(streams), "settings, results and health sealed since are delivered")
        await restore(engine)
        ids = await submit(http, request(1))  # whatever becomes of it while the two histories differ
        await run_all()
        expected = {"settings", "results", "health"} if network == "response" else {"requests"}

        async def all_stopped() -> bool:
            return {name for name, state in (await streams()).items() if state["stopped"]} == expected

        await eventually(all_stopped, "the streams whose sender lost its history are stopped")
        assert airlock.airlock("verify").returncode == 1
        for stream in expected:
            done = airlock.airlock("stream", "new-epoch", stream, "--reason", f"{network} restored from its backup")
            assert done.returncode == 0, done.stderr
            assert f"{stream}: epoch 2 follows batch 1." in done.stdout

        for request_id, before in shown.items():
            now = await result(http, request_id)
            assert now | {"source": ""} == before | {"source": ""}, "a result that its owner was shown has changed"
        assert (await result(http, ids[0]))["status"] == "completed"

        said: list[str] = []

        async def agree() -> bool:
            done = await asyncio.to_thread(airlock.airlock, "verify")
            said.append(done.stdout + done.stderr)
            return done.returncode == 0

        await eventually(agree, lambda: f"both sides agree to the last record:\n{said[-1]}")
    await engine.dispose()


async def all_delivered(streams: Callable[[], Awaitable[dict[str, dict[str, Any]]]]) -> bool:
    """Whether two or more batches of each pushed stream are on the other side, and all of them."""
    pushed = [state for state in (await streams()).values() if state["direction"] == "out"]
    return all(state["sequence"] >= 2 and state["delivered"] == state["sequence"] for state in pushed)
