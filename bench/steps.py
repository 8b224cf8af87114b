"""Where a lone request's time goes: when it reached each step, by the times in the rows."""

import statistics
from collections.abc import Mapping
from datetime import datetime

import asyncpg

_REQUEST_NETWORK = """
SELECT request_id, submitted_at, results.sequence AS result_batch,
       arrived.received_at AS arrived, results.received_at AS applied
FROM requests JOIN results USING (request_id)
JOIN received_batches AS arrived ON arrived.stream = 'results' AND arrived.sequence = results.sequence
WHERE submitted_at >= $1
"""
_RESPONSE_NETWORK = """
SELECT request_id, taken.received_at AS taken, results.created_at AS executed, sealed.sealed_at AS sealed
FROM requests JOIN results USING (request_id)
JOIN received_batches AS taken ON taken.stream = 'requests' AND taken.sequence = requests.sequence
JOIN unnest($1::uuid[], $2::bigint[]) AS crossed (request_id, batch) USING (request_id)
JOIN sealed_batches AS sealed ON sealed.stream = 'results' AND sealed.sequence = crossed.batch
"""
STEPS = {
    "taken": "received by the response network",
    "executed": "executed",
    "sealed": "result sealed",
    "arrived": "result received by the request network",
    "applied": "result applied",
}


async def steps(request_database: str, response_database: str, since: datetime) -> Mapping[str, float]:
    """Milliseconds from submission to each of `STEPS`: the medians of the requests submitted since then."""
    here = {row["request_id"]: row for row in await _rows(request_database, _REQUEST_NETWORK, since)}
    batches = [row["result_batch"] for row in here.values()]
    there = await _rows(response_database, _RESPONSE_NETWORK, list(here), batches)
    passed: dict[str, list[float]] = {name: [] for name in STEPS}
    for row in there:
        known = {**here[row["request_id"]], **row}
        for name, times in passed.items():
            times.append((known[name] - known["submitted_at"]).total_seconds() * 1000)
    return {name: round(statistics.median(times), 1) for name, times in passed.items() if times}


async def _rows(url: str, query: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        found: list[asyncpg.Record] = await connection.fetch(query, *arguments)
        return found
    finally:
        await connection.close()
