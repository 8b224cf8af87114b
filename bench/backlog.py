"""Fills both networks' tables by SQL: requests, and their results as executed and not sent, or as long since arrived.

A result of 1 KB holds four rows of the sample's airports, mixed anew each time, so that it compresses as results do.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from bench.stage import Stage

GROUP = 5000
"""Requests in a group: what a full batch of them holds, as a backlog comes in."""
USER = "0198c0de-0000-7000-8000-0000000000aa"
AT_ONCE = 200_000
"""Rows in one statement."""

_ID = "CAST('0198c0de-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid)"
"""A request's id by its number: ascending, as those of UUID version 7 are, and the same in both networks."""
_GROUPED = f"1, number / {GROUP} + 1"
"""Epoch and sequence of its group."""
_MIXED = """
CREATE TABLE IF NOT EXISTS bench_rows AS
SELECT row_number() OVER (ORDER BY icao) - 1 AS place, row_to_json(airports)::text AS line FROM sample.airports
"""
_BODY = f"""
convert_to('{{"request_id":"' || {_ID} || '","status":"completed","data":[' || one.line || ',' || two.line || ','
    || three.line || ',' || four.line || '],"returned":4,"total":4,"truncated":false,"error":null,'
    || '"executed_at":"2026-01-01T00:00:00Z","duration_ms":' || number % 1000 || '}}', 'UTF8')
"""
_MIX = " ".join(
    f"JOIN bench_rows AS {name} ON {name}.place = number * {factor} % (SELECT count(*) FROM bench_rows)"
    for name, factor in (("one", 1), ("two", 7919), ("three", 104729), ("four", 1299709))
)
_SMALL = f"""convert_to('{{"request_id":"' || {_ID} || '","status":"completed","data":[]}}', 'UTF8')"""


def bodies() -> str:
    """A query for ``request_id`` and ``body`` of the results number $1 to $2, for a database with `mixed_rows`."""
    return f"SELECT {_ID} AS request_id, {_BODY} AS body FROM generate_series($1::bigint, $2) AS number {_MIX}"


_ASKED = f"""
INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)
SELECT {_ID}, '{USER}', 'airport', 5, '{{}}', now(), {_GROUPED} FROM generate_series($1::bigint, $2) AS number
"""
_GROUPS = f"""
INSERT INTO request_groups (epoch, sequence, size, started_at)
SELECT 1, number / {GROUP} + 1, count(*), now() FROM generate_series($1::bigint, $2) AS number GROUP BY 2
ON CONFLICT DO NOTHING
"""
_EXECUTED = f"""
WITH made AS (
    INSERT INTO results (request_id, type, status, returned, total, duration_ms, body)
    SELECT request_id, 'airport', 'completed', 4, 4, 2.6, body FROM ({bodies()}) AS executed
    RETURNING request_id, body)
INSERT INTO outbox (stream, body) SELECT 'results', body FROM made ORDER BY request_id
"""
_EXECUTED_LONG_AGO = f"""
INSERT INTO results (request_id, type, status, returned, total, duration_ms, body)
SELECT {_ID}, 'airport', 'completed', 0, 0, 2.6, {_SMALL} FROM generate_series($1::bigint, $2) AS number
"""
_ARRIVED_LONG_AGO = f"""
INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
SELECT {_ID}, '{USER}', 'completed', {_SMALL}, 0, number / {GROUP} + 1
FROM generate_series($1::bigint, $2) AS number
"""
_CROSSED = "sealed_batches, received_batches, incoming_streams, outgoing_streams"
_DATA = {
    "request": f"requests, request_groups, results, {_CROSSED}",
    "response": f"requests, results, outbox, {_CROSSED}",
}


async def mixed_rows(url: str) -> None:
    """Make the rows that results are made of, in a database that has the airports."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_MIXED)
        await connection.execute("ANALYZE bench_rows")
    finally:
        await connection.close()


async def backlog(stage: Stage, first: int, count: int) -> None:
    """Results of 1 KB of requests number ``first`` and on, executed and not sent."""
    await mixed_rows(stage.databases.response)
    await asyncio.gather(
        _fill(stage, "response", (_ASKED, _EXECUTED), first, count),
        _fill(stage, "request", (_ASKED, _GROUPS), first, count),
    )
    await settle(stage)


async def history(stage: Stage, first: int, count: int) -> None:
    """Small results of requests number ``first`` and on, that have long since arrived and been read."""
    await asyncio.gather(
        _fill(stage, "response", (_ASKED, _EXECUTED_LONG_AGO), first, count),
        _fill(stage, "request", (_ASKED, _GROUPS, _ARRIVED_LONG_AGO), first, count),
    )
    await settle(stage)


async def settle(stage: Stage) -> None:
    """Have the planner know what there is, and everything on disk: as it is some minutes after the rows came."""
    for network in _DATA:
        connection = await stage.connect(network)
        try:
            await connection.execute("VACUUM (ANALYZE)")
        finally:
            await connection.close()
    await stage.checkpoint()


async def clear(stage: Stage) -> None:
    """Forget everything that crossed or was to cross. Nothing may be under way."""
    for network, tables in _DATA.items():
        connection = await stage.connect(network)
        try:
            for table in tables.split(", "):  # one by one: together they would deadlock with who looks at two of them
                await connection.execute(f"TRUNCATE {table}")
        finally:
            await connection.close()


async def _fill(stage: Stage, network: str, statements: Sequence[str], first: int, count: int) -> None:
    connection: asyncpg.Connection[asyncpg.Record] = await stage.connect(network)
    try:
        for begin in range(first, first + count, AT_ONCE):
            last = min(begin + AT_ONCE, first + count) - 1
            for statement in statements:
                await connection.execute(statement, begin, last)
    finally:
        await connection.close()
