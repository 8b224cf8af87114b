"""A whole Airlock with several partitions, seen from outside; and what becomes of it when their number is lowered."""

import asyncio
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from models.streams import StreamName, partition_of
from tests.system.running import RunningAirlock, eventually, result, submit

IST = {"type": "airport", "params": {"iata": "IST"}}


def told(partitions: int) -> dict[str, str]:
    return {f"AIRLOCK_{network}_PARTITIONS": str(partitions) for network in ("REQUEST", "RESPONSE")}


async def a_user_of_each(airlock: RunningAirlock, partitions: int) -> list[httpx.AsyncClient]:
    """Makes users until every partition has one; gives their clients, by partition."""
    found: dict[int, str] = {}
    for number in range(200):
        if len(found) == partitions:
            break
        made = await asyncio.to_thread(airlock.airlock, "users", "create", f"user-{number}", "--role", "user", "--json")
        user = json.loads(made.stdout)
        found.setdefault(partition_of(UUID(user["user_id"]), partitions), user["key"])
    async with airlock.caller("response") as operator:
        await operator.post("/v1/schedules/export-settings/trigger")
    url = airlock.up["request_api"]
    users = [
        httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=90, trust_env=False)
        for _, key in sorted(found.items())
    ]

    async def are_known() -> bool:
        return all([(await user.get("/v1/requests")).status_code == 200 for user in users])

    await eventually(are_known, "the users' keys cross")
    return users


def verified(airlock: RunningAirlock) -> dict[str, Any]:
    answer = airlock.airlock("verify", "--json")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return {report["stream"]: report for report in json.loads(answer.stdout)["streams"]}


async def all_answered(users: list[httpx.AsyncClient]) -> None:
    ids = await asyncio.gather(*(submit(user, *[IST] * 3) for user in users))
    for user, mine in zip(users, ids, strict=True):
        for request_id in mine:
            assert (await result(user, request_id))["status"] == "completed"


def running(airlock: RunningAirlock) -> set[str]:
    listed = airlock.temporal("workflow", "list", "--query", "ExecutionStatus = 'Running'")
    return {item["execution"]["workflowId"] for item in listed if item["type"]["name"] == "PullRequests"}


@pytest.fixture
async def airlock(tmp_path: Path) -> Any:
    airlock = RunningAirlock(tmp_path / "home", **told(4))
    try:
        await airlock.start()
        yield airlock
    finally:
        await airlock.end()


async def test_users_of_all_partitions_are_answered_and_lowering_their_number_loses_nothing(
    airlock: RunningAirlock,
) -> None:
    users = await a_user_of_each(airlock, 4)
    await all_answered(users)
    reports = verified(airlock)
    logs = [*StreamName.REQUESTS.partitions(4), *StreamName.RESULTS.partitions(4)]
    assert set(reports) == {*StreamName, *logs}
    assert all(reports[stream]["compared_batches"] for stream in logs), "a partition carried nothing"
    assert running(airlock) == {"pull-requests", "pull-requests-1", "pull-requests-2", "pull-requests-3"}

    assert await airlock.stop() == 0
    airlock._environment |= told(2)
    await airlock.start()
    sealed = {stream: reports[stream]["sender"]["sequence"] for stream in logs}
    users = [
        httpx.AsyncClient(base_url=airlock.up["request_api"], headers=user.headers, timeout=90, trust_env=False)
        for user in users
    ]
    await all_answered(users)
    after = verified(airlock)
    for stream in logs:
        more = after[stream]["sender"]["sequence"] > sealed[stream]
        assert more == (stream.number < 2), f"{stream}: {sealed[stream]}, then {after[stream]['sender']['sequence']}"
    assert running(airlock) == {"pull-requests", "pull-requests-1"}
    status = json.loads(airlock.airlock("status", "--json").stdout)
    assert status["alerts"] == [], "what is drained and pulled no more is no alarm"
