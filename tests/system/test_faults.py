"""What a user sees when parts are killed, stopped or emptied: slower for a while, and nothing lost or doubled."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter

import asyncpg
import redis.asyncio

from configuration.home import CLONE
from tests.system.running import RunningAirlock, eventually, result, submit

AIRPORTS = ("IST", "GVA", "KEF", "SIN", "LHR", "JFK", "NRT", "SYD")


def request(number: int) -> dict[str, object]:
    return {"type": "airport", "params": {"iata": AIRPORTS[number % len(AIRPORTS)]}}


async def test_reads_are_right_while_redis_is_flushed_stopped_and_killed(airlock: RunningAirlock) -> None:
    async with airlock.caller() as http, redis.asyncio.from_url(airlock.up["redis"]) as cache:
        ids = await submit(http, *(request(number) for number in range(20)))
        wanted = {request_id: await result(http, request_id) for request_id in ids}

        async def all_right() -> None:
            for request_id, right in wanted.items():
                seen = await result(http, request_id)
                assert seen | {"source": ""} == right | {"source": ""}

        await cache.flushall()
        await all_right()
        pid = airlock.signal("redis", signal.SIGSTOP)
        try:
            await all_right()
            fresh = (await submit(http, request(0)))[0]
            assert (await result(http, fresh))["status"] == "completed"
        finally:
            os.kill(pid, signal.SIGCONT)
        await airlock.kill("redis")
        await all_right()


async def test_what_was_accepted_while_temporal_was_stopped_completes_when_it_is_back(airlock: RunningAirlock) -> None:
    async with airlock.caller() as http, airlock.caller("response") as operator:
        pid = airlock.signal("temporal", signal.SIGSTOP)
        try:
            answers = await asyncio.gather(*(http.post("/v1/requests", json=request(number)) for number in range(50)))
            changed = await operator.put("/v1/settings/during", json={"value": 1, "visibility": "public"})
        finally:
            os.kill(pid, signal.SIGCONT)
        assert {answer.status_code for answer in answers} <= {202, 503}
        assert changed.status_code // 100 == 2
        accepted = [answer.json()["id"] for answer in answers if answer.status_code == 202]
        assert accepted
        results = await asyncio.gather(*(result(http, request_id) for request_id in accepted))
        assert {item["status"] for item in results} == {"completed"}
        await operator.post("/v1/schedules/export-settings/trigger")

        async def has_crossed() -> bool:
            return "during" in (await http.get("/v1/settings")).text

        await eventually(has_crossed, "the setting that was changed meanwhile crosses")
        await operator.delete("/v1/settings/during")


async def test_every_process_may_be_killed_and_each_request_still_has_one_result(airlock: RunningAirlock) -> None:
    async with airlock.caller() as http:
        submitting = [
            asyncio.create_task(submit(http, *(request(number) for number in range(start, start + 20))))
            for start in range(0, 1000, 20)
        ]
        for name in airlock.up["processes"]:
            await airlock.kill(name)
        ids = [request_id for group in await asyncio.gather(*submitting) for request_id in group]
        assert len(set(ids)) == 1000
        results = {request_id: await result(http, request_id, 180) for request_id in ids}
    for number, request_id in enumerate(ids):
        answer = results[request_id]
        assert answer["status"] in ("completed", "failed"), answer
        if answer["status"] == "completed":
            assert [row["iata"] for row in answer["data"]] == [AIRPORTS[number % len(AIRPORTS)]]
        else:
            assert answer["error"]["reason"]
    assert "starting again" in airlock.said
    await _every_result_once(airlock, ids)


async def _every_result_once(airlock: RunningAirlock, ids: list[str]) -> None:
    """In both databases each of these requests has one row of result, and no record was set aside."""
    for network in ("request", "response"):
        connection = await asyncpg.connect(airlock.up["databases"][network])
        try:
            found = await connection.fetch(
                "SELECT request_id::text FROM results WHERE request_id = ANY($1::uuid[])", ids
            )
            assert Counter(item["request_id"] for item in found) == Counter(ids)
            assert await connection.fetchval("SELECT count(*) FROM quarantined_records") == 0
        finally:
            await connection.close()


async def test_a_pause_survives_a_worker_restart_and_holds_results_back(airlock: RunningAirlock) -> None:
    paused = airlock.airlock("schedules", "pause", "export-results", "--note", "testing")
    assert paused.returncode == 0, paused.stderr
    try:
        await airlock.kill("response-worker")

        async def is_synced() -> bool:
            return airlock.said.count("schedules.synced") >= 2

        await eventually(is_synced, "the new worker has synced the schedules")
        listed = json.loads(airlock.airlock("schedules", "list", "--json").stdout)
        assert [item["id"] for item in listed if item["paused"]] == ["export-results"]
    finally:
        assert airlock.airlock("schedules", "resume", "export-results").returncode == 0
    async with airlock.caller() as http:
        assert (await result(http, (await submit(http, request(0)))[0]))["status"] == "completed"


async def test_two_response_workers_side_by_side_do_nothing_twice(airlock: RunningAirlock) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRLOCK_")}
    environment |= {"AIRLOCK_HOME": str(airlock.home), "PYTHONPATH": str(CLONE)}
    second = await asyncio.create_subprocess_exec(
        sys.executable, "worker.py", "response", cwd=CLONE, env=environment, stdout=subprocess.PIPE
    )
    assert second.stdout is not None
    try:
        while b"worker.ready" not in await second.stdout.readline():
            pass
        async with airlock.caller() as http:
            groups = await asyncio.gather(*(submit(http, *(request(n) for n in range(25))) for _ in range(8)))
            ids = [request_id for group in groups for request_id in group]
            for request_id in ids:
                assert (await result(http, request_id))["status"] == "completed"
        await _every_result_once(airlock, ids)
    finally:
        second.send_signal(signal.SIGTERM)
        await second.communicate()
    assert second.returncode == 0
