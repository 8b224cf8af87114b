"""What a user sees when all is well."""

import asyncio
import json

from tests.system.running import RunningAirlock, eventually, result, submit


async def test_a_request_is_answered_over_the_real_data_and_read_again_from_the_cache(airlock: RunningAirlock) -> None:
    async with airlock.caller() as http:
        accepted = await http.post("/v1/requests", json={"type": "airport", "params": {"iata": "IST"}})
        assert accepted.status_code == 202
        path = f"/v1/requests/{accepted.json()['id']}/result"
        first = await http.get(path, params={"wait": 30})
        second = await http.get(path)
        seen = (await http.get(f"/v1/requests/{accepted.json()['id']}")).json()
    assert first.status_code == 200
    assert first.json()["source"] in ("database", "cache")
    assert [row["name"] for row in first.json()["data"]] == ["Istanbul Airport"]
    assert (first.json()["returned"], first.json()["total"], first.json()["truncated"]) == (1, 1, False)
    assert second.json() == first.json() | {"source": "cache"}
    assert seen["status"] == "completed"


async def test_every_step_of_a_trace_names_the_run_that_did_it(airlock: RunningAirlock) -> None:
    async with airlock.caller() as http:
        (request_id,) = await submit(http, {"type": "airport", "params": {"iata": "KEF"}})
        await result(http, request_id)
    found: dict[str | None, tuple[str, str, str]] = {}

    async def all_are_known() -> bool:
        """Temporal lists a run a moment after it began."""
        steps = json.loads(airlock.airlock("trace", request_id, "--json").stdout)["steps"]
        found.update({step["workflow"]: (step["network"], step["workflow_id"], step["run_id"]) for step in steps})
        return all(step["run_id"] for step in steps if step["workflow"])

    await eventually(all_are_known, "each step has its run")
    del found[None]  # steps that no workflow did
    assert found.keys() == {"FulfillRequests", "PullRequests", "ExecuteRequests", "ExportResults", "ImportBatch"}
    for kind, (network, workflow_id, run_id) in found.items():
        ran = airlock.temporal("workflow", "describe", "-w", workflow_id, "-r", run_id, namespace=network)
        assert ran["workflowExecutionInfo"]["type"]["name"] == kind


async def test_a_cut_off_result_says_how_much_there_is(airlock: RunningAirlock) -> None:
    request = {"type": "airports-in-country", "params": {"country": "FR", "limit": 7}}
    async with airlock.caller() as http:
        answer = await result(http, (await submit(http, request))[0])
    assert (answer["returned"], len(answer["data"]), answer["truncated"]) == (7, 7, True)
    assert answer["total"] > 400


async def test_the_four_schedules_have_their_cadences_and_the_request_network_has_none(airlock: RunningAirlock) -> None:
    listed = airlock.temporal("schedule", "list")
    found = {item["scheduleId"]: item["info"]["spec"]["interval"][0]["interval"] for item in listed}
    assert found == {
        "export-settings": "60s",
        "export-results": "120s",
        "system-monitoring": "300s",
        "cache-maintenance": "3600s",
    }
    assert not airlock.temporal("schedule", "list", namespace="request")


async def test_a_changed_setting_shows_on_the_request_network_after_one_export(airlock: RunningAirlock) -> None:
    async with airlock.caller("response") as operator, airlock.caller() as http:
        public = await operator.put("/v1/settings/motd", json={"value": {"text": "hello"}, "visibility": "public"})
        secret = await operator.put("/v1/settings/token", json={"value": "s3cr3t-s3cr3t", "visibility": "secret"})
        assert (public.status_code // 100, secret.status_code // 100) == (2, 2)
        crossing = airlock.airlock("preview", "settings").stdout
        assert '"motd"' in crossing
        assert "s3cr3t-s3cr3t" not in crossing
        assert (await operator.post("/v1/schedules/export-settings/trigger")).status_code // 100 == 2

        async def has_crossed() -> bool:
            settings = (await http.get("/v1/settings")).json()["settings"]
            return any(item["name"] == "motd" and item["value"] == {"text": "hello"} for item in settings)

        await eventually(has_crossed, "the setting crosses")
        assert "s3cr3t" not in (await http.get("/v1/settings")).text
        await operator.delete("/v1/settings/motd")
        await operator.delete("/v1/settings/token")


async def test_requests_that_arrive_together_share_few_batches(airlock: RunningAirlock) -> None:
    request = {"type": "airport", "params": {"iata": "GVA"}}
    async with airlock.caller() as http:
        before = await _sealed(airlock)
        ids = [ids[0] for ids in await asyncio.gather(*(submit(http, request) for _ in range(200)))]
        sealed = await _sealed(airlock) - before
        results = await asyncio.gather(*(result(http, request_id) for request_id in ids))
    assert len(set(ids)) == 200
    assert all(item["status"] == "completed" for item in results)
    assert sealed < 100


async def _sealed(airlock: RunningAirlock) -> int:
    async with airlock.caller() as http:
        streams = (await http.get("/v1/health")).json()["streams"]
    return next(int(item["sequence"]) for item in streams if item["stream"] == "requests")


async def test_the_command_line_shows_what_runs_and_gives_json(airlock: RunningAirlock) -> None:
    for arguments in (("status",), ("streams",), ("schedules", "list")):
        table, machine = airlock.airlock(*arguments), airlock.airlock(*arguments, "--json")
        assert (table.returncode, machine.returncode) == (0, 0), table.stderr + machine.stderr
        assert "export-results" in table.stdout or arguments == ("streams",)
        json.loads(machine.stdout)
