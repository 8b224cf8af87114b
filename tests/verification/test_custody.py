"""Following one request: for its owner in the request network, and for operators over both."""

import asyncio
import json
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.program import app
from fulfilment.first_reads import FirstReads
from fulfilment.request_store import cancel_request
from models.streams import BatchRef
from storage.database import connect, execute
from tests.activities.crossing import USER, change, new_id, one, table
from tests.api_request.serving import User, publish
from tests.system.running import eventually
from tests.verification.test_command import environment
from tests.verification.world import REQUESTS, RESULTS, World

__all__ = ["environment"]


async def steps(world: World, request_id: UUID) -> tuple[str, list[str], str | None]:
    """As its owner sees them."""
    owner = User(USER, "alk_owner")
    other = User(new_id(), "alk_other")
    await publish(world.networks, [owner.record(), other.record()])
    async with owner.calls(world.url) as http:
        for _ in range(100):
            answer = await http.get(f"/v1/requests/{request_id}/trace")
            if answer.status_code != 401:  # the new snapshot's keys are known in a moment
                break
            await asyncio.sleep(0.05)
    async with other.calls(world.url) as http:
        assert (await http.get(f"/v1/requests/{request_id}/trace")).status_code == 404
    trace = answer.json()
    return trace["status"], [step["step"] for step in trace["steps"]], trace["waits_for"]


async def test_the_owner_sees_each_step_and_what_is_waited_for_from_this_network_alone(world: World) -> None:
    (request_id,) = await world.submitted(1)
    seen = ["submitted", "sealed"]
    assert await steps(world, request_id) == ("queued", seen, "the response network to pull its batch")
    await world.link.pull(REQUESTS, 0, 0)
    seen += ["handed-out"]
    assert (await steps(world, request_id))[:2] == ("sent", seen)
    batch = await world.pull.once(REQUESTS, 0)
    assert batch is not None
    seen += ["pulled"]
    status, names, waits = await steps(world, request_id)
    assert (status, names, waits) == ("executing", seen, "the response network to execute it and send the result")
    await world.execute(batch)
    await world.delivery.drain(RESULTS, lambda _: None)
    await world.apply(RESULTS)
    seen += ["executed", "result-sealed", "result-delivered", "result-applied"]
    assert await steps(world, request_id) == ("completed", seen, None)


async def test_the_first_reading_of_a_result_is_noted_once_and_beside_the_reading(world: World) -> None:
    (request_id,) = await world.answered(1)
    assert "read" not in (await steps(world, request_id))[1]
    owner = User(USER, "alk_owner")

    async def noted() -> object:
        statement = "SELECT first_read_at FROM results WHERE request_id = :id"
        return await one(world.networks.request, statement, id=request_id)

    async def is_noted() -> bool:
        return await noted() is not None

    async with owner.calls(world.url) as http:
        assert (await http.get(f"/v1/requests/{request_id}/result")).status_code == 200
        await eventually(is_noted, "the reading is noted")
        first = await noted()
        assert (await http.get(f"/v1/requests/{request_id}/result")).status_code == 200
    assert (await steps(world, request_id))[1][-2:] == ["result-applied", "read"]
    assert await noted() == first


async def test_noting_a_reading_waits_for_nobody_and_survives_a_database_that_is_away(world: World) -> None:
    first, second, _ = await world.answered()
    side = world.networks.request
    reads = FirstReads(side.engine)
    async with side.engine.begin() as connection:
        await execute(connection, "SELECT FROM results WHERE request_id = :id FOR UPDATE", id=first)
        for request_id in (first, second):
            reads.record(request_id)
        async with asyncio.timeout(30):
            await reads.flush()
    read = await table(side, "SELECT request_id FROM results WHERE first_read_at IS NOT NULL")
    assert read == [(second,)], "the other was held by somebody"
    away = connect("postgresql://nobody@127.0.0.1:1/x", 1)
    lost = FirstReads(away)
    lost.record(first)
    await lost.flush()  # raises nothing
    await away.dispose()


async def test_a_result_in_quarantine_is_what_its_request_waits_for(
    world: World, environment: pytest.MonkeyPatch
) -> None:
    (request_id,) = await world.answered(1)
    side = world.networks.request
    await change(
        side,
        "INSERT INTO quarantined_records (stream, epoch, record, sequence, reason, size, body)"
        " SELECT 'results', 1, 1, 1, 'a secret reason', octet_length(body), body FROM results",
    )
    await change(side, "DELETE FROM results")
    _, names, waits = await steps(world, request_id)
    assert (names[-1], waits) == ("result-quarantined", "an operator: its result is quarantined as 1.1")
    told = (await trace(str(request_id))).stdout
    assert "a secret reason" in told, "operators are told"


async def test_a_cancelled_request_and_a_damaged_result_can_be_traced(world: World) -> None:
    cancelled, damaged = await world.submitted(2)
    async with world.networks.request.engine.begin() as connection:
        assert await cancel_request(connection, USER, cancelled)
    await world.carry_on()
    await change(world.networks.request, "UPDATE results SET body = '{' WHERE request_id = :id", id=damaged)
    assert (await steps(world, cancelled))[1].count("cancelled") == 1
    assert "result-applied" in (await steps(world, damaged))[1]


async def test_who_has_no_key_sees_nothing(world: World) -> None:
    (request_id,) = await world.submitted(1)
    async with httpx.AsyncClient(base_url=world.url) as http:
        assert (await http.get(f"/v1/requests/{request_id}/trace")).status_code == 401


async def trace(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, app, ["trace", *arguments])


async def test_an_operator_sees_both_networks(world: World, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (request_id,) = await world.answered(1)
    shown = await trace(str(request_id))
    assert (shown.exit_code, "Waits for nothing." in shown.stdout) == (0, True), shown.stderr
    found = json.loads((await trace(str(request_id), "--json")).stdout)
    assert [step["step"] for step in found["steps"]] == [
        "submitted", "sealed", "handed-out", "pulled", "opened", "executed", "result-sealed", "result-sent",
        "result-delivered", "result-receipt", "result-applied",
    ]  # fmt: skip
    workflows = {step["workflow"] for step in found["steps"]} - {None}
    assert workflows == {"FulfillRequests", "PullRequests", "ExecuteRequests", "ExportResults", "ImportBatch"}
    assert {(step["workflow_id"], step["run_id"]) for step in found["steps"]} == {(None, None)}, "nothing is guessed"
    assert "unknown" in shown.stdout, "there is no Temporal in this test"
    unknown = await trace(str(new_id()))
    assert (unknown.exit_code, "does not know" in unknown.stderr) == (1, True)
    environment.setenv("AIRLOCK_RESPONSE_LINK_URL", "http://127.0.0.1:1")
    half = json.loads((await trace(str(request_id), "--json")).stdout)
    assert half["trouble"]
    batches = {step["batch"] for step in half["steps"]}
    assert str(BatchRef(stream=RESULTS, epoch=1, sequence=1)) in batches, "found without the request network's word"


async def test_an_operator_is_told_what_a_request_waits_for(world: World, environment: pytest.MonkeyPatch) -> None:
    (request_id,) = await world.submitted(1)
    assert "Waits for: the response network to pull its batch" in (await trace(str(request_id))).stdout
    batch = await world.pull.once(REQUESTS, 0)
    assert batch is not None
    await world.execute(batch)
    assert "the next export to seal and send its result" in (await trace(str(request_id))).stdout
