"""The plain routes. Run as `python -m bench.plain.api`, configured by BENCH_… variables."""

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import orjson
from fastapi import FastAPI, Response
from redis.asyncio import Redis
from uuid_utils.compat import uuid7

from api.listening import Listener
from api.serving import serve
from models.requests import RequestSubmission
from sample.request_types import REQUEST_TYPES

TABLES = """
CREATE TABLE requests (
    request_id uuid PRIMARY KEY, type text NOT NULL, params bytea NOT NULL, submitted_at timestamptz NOT NULL
);
CREATE TABLE results (request_id uuid PRIMARY KEY, body bytea NOT NULL);
"""
CONNECTIONS = 10
"""Connections to each database: Airlock's default."""
QUERIES = {
    kind["name"]: f"SELECT row_to_json(answer.*)::text FROM ({kind['query'].replace(':iata', '$1')}) AS answer"
    for kind in REQUEST_TYPES
    if kind["name"] == "airport"
}


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with (
        asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=1, max_size=CONNECTIONS) as app.state.pool,
        asyncpg.create_pool(os.environ["BENCH_ANSWERS"], min_size=1, max_size=CONNECTIONS) as app.state.answers,
        asyncpg.create_pool(os.environ["BENCH_SOURCE"], min_size=1, max_size=CONNECTIONS) as app.state.source,
        Redis.from_url(os.environ["BENCH_REDIS"]) as app.state.redis,
    ):
        app.state.answered = defaultdict(asyncio.Event)
        app.state.executing = set()
        yield


app = FastAPI(lifespan=_lifespan, openapi_url=None)


@app.get("/readyz")
async def ready() -> dict[str, str]:
    """Whether the database answers."""
    await app.state.pool.fetchval("SELECT 1")
    return {"status": "ready"}


@app.post("/v1/requests", status_code=202)
async def submit(submission: RequestSubmission) -> dict[str, Any]:
    """One INSERT, committed."""
    return _accepted(await _stored(submission))


@app.get("/v1/requests/{request_id}/result")
async def cached(request_id: UUID) -> Response:
    """The result from Redis."""
    return Response(await app.state.redis.get(str(request_id)), media_type="application/json")


@app.post("/executed/v1/requests", status_code=202)
async def submit_and_execute(submission: RequestSubmission) -> dict[str, Any]:
    """As `submit`; the request is executed at once in this process."""
    request_id = await _stored(submission)
    executing = asyncio.create_task(_execute(request_id, submission))
    app.state.executing.add(executing)
    executing.add_done_callback(app.state.executing.discard)
    return _accepted(request_id)


@app.get("/executed/v1/requests/{request_id}/result")
async def result(request_id: UUID) -> Response:
    """The result, as soon as it exists."""
    await app.state.answered[request_id].wait()
    body = await app.state.pool.fetchval("SELECT body FROM results WHERE request_id = $1", request_id)
    return Response(body, media_type="application/json")


async def _stored(submission: RequestSubmission) -> UUID:
    request_id = uuid7()
    await app.state.pool.execute(
        "INSERT INTO requests (request_id, type, params, submitted_at) VALUES ($1, $2, $3, $4)",
        request_id,
        submission.type,
        orjson.dumps(submission.params),
        datetime.now(UTC),
    )
    return request_id


async def _execute(request_id: UUID, submission: RequestSubmission) -> None:
    """The data work that Airlock does for a request: store it there, query, store the result there and here."""
    answers, store = app.state.answers, "INSERT INTO results (request_id, body) VALUES ($1, $2)"
    await answers.execute(
        "INSERT INTO requests (request_id, type, params, submitted_at) VALUES ($1, $2, $3, now())",
        request_id,
        submission.type,
        orjson.dumps(submission.params),
    )
    rows = await app.state.source.fetch(QUERIES[submission.type], submission.params["iata"])
    data = [orjson.Fragment(row[0]) for row in rows]
    body = orjson.dumps({"request_id": request_id, "status": "completed", "data": data, "returned": len(data)})
    await answers.execute(store, request_id, body)
    await app.state.pool.execute(store, request_id, body)
    app.state.answered[request_id].set()


def _accepted(request_id: UUID) -> dict[str, Any]:
    return {"ids": [str(request_id)], "id": str(request_id)}


if __name__ == "__main__":
    asyncio.run(serve(app, [Listener("127.0.0.1", int(os.environ["BENCH_PORT"]))]))
