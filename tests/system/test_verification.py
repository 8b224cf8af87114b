"""The promise of `airlock verify`, on a whole Airlock that runs, by the command line alone."""

import json
from typing import Any
from uuid import uuid4

import asyncpg

from tests.system.running import RunningAirlock, result, submit


def verified(airlock: RunningAirlock, *arguments: str) -> tuple[int, Any]:
    done = airlock.airlock("verify", "--json", *arguments)
    return done.returncode, json.loads(done.stdout)


def differences(report: Any) -> set[tuple[str, str, str, str]]:
    return {
        (item["network"], item["table"], item["kind"], item["request_id"])
        for stream in report["streams"]
        for item in stream["differences"]
    }


async def test_a_row_removed_a_byte_changed_and_a_row_added_are_named_and_healed(airlock: RunningAirlock) -> None:
    """Exactly those three are named; the exit codes are 1, then 0."""
    async with airlock.caller() as http:
        asked = [{"type": "airport", "params": {"iata": iata}} for iata in ("IST", "GVA", "KEF")]
        ids = await submit(http, *asked)
        answers = {request_id: await result(http, request_id) for request_id in ids}
    database = await asyncpg.connect(airlock.up["databases"]["request"])
    try:
        before = await database.fetch("SELECT request_id, user_id, status, body FROM results ORDER BY request_id")
        gone, changed, added = ids[0], ids[1], str(uuid4())
        await database.execute("DELETE FROM results WHERE request_id = $1", gone)
        flipped = "set_byte(body, octet_length(body) / 2, get_byte(body, octet_length(body) / 2) # 1)"
        await database.execute(f"UPDATE results SET body = {flipped} WHERE request_id = $1", changed)
        await database.execute(
            "INSERT INTO results SELECT $1, user_id, status, body, epoch, sequence FROM results WHERE request_id = $2",
            added,
            ids[2],
        )
        three = {
            ("request", "results", "missing", gone),
            ("request", "results", "different", changed),
            ("request", "results", "extra", added),
        }
        code, report = verified(airlock)
        assert (code, differences(report)) == (1, three)
        code, report = verified(airlock, "--repair")
        assert (code, differences(report)) == (0, set())
        assert (report["repair"]["rebuilt"], report["repair"]["set_aside"]) == (2, 1)
        assert verified(airlock)[0] == 0
        after = await database.fetch("SELECT request_id, user_id, status, body FROM results ORDER BY request_id")
        assert after == before
    finally:
        await database.close()
    async with airlock.caller() as http:
        for request_id, answer in answers.items():
            seen = await result(http, request_id)
            assert (seen["data"], seen["executed_at"]) == (answer["data"], answer["executed_at"])
    (kept,) = json.loads(airlock.airlock("verify", "--set-aside", "--json").stdout)
    assert (kept["request_id"], kept["table"], kept["row"].split(":")[0]) == (added, "results", "request")
    assert airlock.airlock("verify", "--put-back", kept["row"]).returncode == 0
    code, report = verified(airlock)
    assert (code, differences(report)) == (1, {("request", "results", "extra", added)})
    assert verified(airlock, "--repair")[0] == 0
    assert airlock.airlock("verify", "--put-back", kept["row"]).returncode == 1, "it is set aside under another number"
