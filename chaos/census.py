"""Counts the requests and results in Airlock's two databases."""

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import asyncpg
import orjson

from chaos.judging import Census
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest

CONNECT_SECONDS = 20.0


async def take_census(databases: Mapping[str, str]) -> Census:
    """Count rows and records of sealed batches in both networks' databases (``request`` and ``response``: DSNs).

    Raises `OSError`, `TimeoutError` or `asyncpg.PostgresError` if one does not answer.
    """
    places: dict[str, Counter[str]] = {}
    by_key: dict[str, list[str]] = {}
    quarantined = 0
    for network, sealed in (("request", "requests"), ("response", "results")):
        async with _connected(databases[network]) as connection:
            for table in ("requests", "results"):
                found = await connection.fetch(f"SELECT request_id::text FROM {table}")
                places[rows_of(table, network)] = Counter(row[0] for row in found)
            places[records_of(sealed)] = await _sealed(connection, sealed)
            quarantined += await connection.fetchval("SELECT count(*) FROM quarantined_records")
            if network == "request":
                keys = await connection.fetch("SELECT key, request_ids::text[] FROM idempotency_keys")
                by_key = {key: list(ids) for key, ids in keys}
    at_once = frozenset((rows_of("requests", "request"), records_of("requests")))
    return Census(places, at_once, by_key, quarantined)


def rows_of(table: str, network: str) -> str:
    """Name of a place."""
    return f"the rows of {table} in the {network} network"


def records_of(stream: str) -> str:
    """Name of a place."""
    return f"the records of the sealed batches of {stream}"


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator["asyncpg.Connection[asyncpg.Record]"]:
    connection = await asyncpg.connect(dsn, timeout=CONNECT_SECONDS)
    try:
        yield connection
    finally:
        await connection.close()


async def _sealed(connection: "asyncpg.Connection[asyncpg.Record]", stream: str) -> Counter[str]:
    """How often each request is a record of a sealed batch."""
    counted: Counter[str] = Counter()
    async with connection.transaction():
        async for manifest, payload in connection.cursor(
            "SELECT manifest, payload FROM sealed_batches WHERE stream = $1 ORDER BY epoch, sequence",
            stream,
        ):
            records = unpack(Manifest.model_validate_json(manifest), payload)
            counted.update(orjson.loads(record)["request_id"] for record in records)
    return counted
