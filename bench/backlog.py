"""Fills both networks' tables by SQL: requests whose results wait in the outbox, or arrived long ago.

A result of 1 KB holds four rows of the sample's airports in varying combinations, so that it compresses as results do.
"""

import asyncio
from collections.abc import Sequence

import asyncpg

from bench.stage import Stage

GROUP = 5000
"""Requests in a group: as many as a full batch holds."""
USER = "0198c0de-0000-7000-8000-0000000000aa"
AT_ONCE = 200_000
"""Rows in one statement."""

_ID = "CAST('0198c0de-0000-7000-8000-' || lpad(to_hex(number), 12, '0') AS uuid)"
"""A request's id by its number: ascending, as UUID version 7 is, and the same in both networks."""
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
    """A query for ``request_id`` and ``body`` of results $1 to $2; the database must have `mixed_rows`."""
    return f"SELECT {_ID} AS request_id, {_BODY} AS body FROM generate_series($1::bigint, $2) AS number {_MIX}"


_ASKED = f"""
INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)
SELECT {_ID}, '{USER}', 'airport', 5, '{{}}', now(), {_GROUPED} FROM generate_series($1::bigint, $2) AS number
"""
_GROUPS = f"""
INSERT INTO request_groups (epoch, sequence, size, fulfilled_at)
SELECT 1, number / {GROUP} + 1, count(*), now() FROM generate_series($1::bigint, $2) AS number GROUP BY 2
ON CONFLICT DO NOTHING
"""
"""Marked as fulfilled, so that no workflow is started to look after them."""
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
    """Create the table of rows from which results are composed; the database must have the airports."""
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(_MIXED)
        await connection.execute("ANALYZE bench_rows")
    finally:
        await connection.close()


async def backlog(stage: Stage, first: int, count: int) -> None:
    """Add ``count`` requests from number ``first``, executed, with results of 1 KB that wait in the outbox."""
    await mixed_rows(stage.databases.response)
    await asyncio.gather(
        _fill(stage, "response", (_ASKED, _EXECUTED), first, count),
        _fill(stage, "request", (_ASKED, _GROUPS), first, count),
    )
    await settle(stage)


async def history(stage: Stage, first: int, count: int) -> None:
    """Add ``count`` requests from number ``first`` whose small results arrived long ago."""
    await asyncio.gather(
        _fill(stage, "response", (_ASKED, _EXECUTED_LONG_AGO), first, count),
        _fill(stage, "request", (_ASKED, _GROUPS, _ARRIVED_LONG_AGO), first, count),
    )
    await settle(stage)


async def settle(stage: Stage) -> None:
    """Update the planner's statistics and write everything to disk, as after some minutes of operation."""
    for network in _DATA:
        connection = await stage.connect(network)
        try:
            await connection.execute("VACUUM (ANALYZE)")
        finally:
            await connection.close()
    await stage.checkpoint()


async def clear(stage: Stage) -> None:
    """Empty all tables of requests, results and batches. Nothing may be in progress."""
    for network, tables in _DATA.items():
        connection = await stage.connect(network)
        try:
            for table in tables.split(", "):  # one by one: together they could deadlock with a query of two of them
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
