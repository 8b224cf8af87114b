"""The request network's API: callers submit and read results, the response network fetches and delivers.

Runs in Airlock's virtual environment, on the same server (granian) as Airlock's API. It needs no Celery: requests are
committed here and fetched by the other side, and results are stored in the transaction that receives them. So the
request network has no worker and no broker that could lose anything, which is better for Celery than the old pipeline.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

import asyncpg
import jsonschema_rs
import orjson
from fastapi import FastAPI, Header, HTTPException, Query, Request, Response
from uuid_utils.compat import uuid7

from api.listening import Listener
from api.serving import serve
from bench.celery.database_app import database_app
from bench.celery.link_signature import HEADER, fits, sign
from sample.request_types import REQUEST_TYPES

WATCHED = os.environ.get("BENCH_WATCHED", "yes") == "yes"
"""Whether arrivals are recorded for the report, which costs another insertion per result."""
LOOK_EVERY = 0.1
"""Seconds between two queries for all awaited results."""
VALIDATORS = {kind["name"]: jsonschema_rs.validator_for(kind["params_schema"]) for kind in REQUEST_TYPES}


class Waiting:
    """The callers that wait for results."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._events: dict[UUID, set[asyncio.Event]] = {}

    async def result(self, request_id: UUID, seconds: float) -> str | None:
        """The body of the result, or None if it does not come in time. Raises `LookupError` for an unknown request."""
        until = time.monotonic() + seconds
        event = asyncio.Event()
        self._events.setdefault(request_id, set()).add(event)
        try:
            while True:
                found = await self._pool.fetchrow(
                    "SELECT body FROM requests LEFT JOIN results USING (request_id) WHERE request_id = $1", request_id
                )
                if found is None:
                    raise LookupError
                left = until - time.monotonic()
                if found["body"] is not None or left <= 0:
                    body: str | None = found["body"]
                    return body
                try:
                    async with asyncio.timeout(left):
                        await event.wait()
                except TimeoutError:
                    pass
                event.clear()
        finally:
            self._events[request_id].discard(event)
            if not self._events[request_id]:
                del self._events[request_id]

    def is_awaited(self, request_id: UUID) -> bool:
        """Whether a caller waits for this result."""
        return request_id in self._events

    async def wake(self) -> None:
        """Query for ever."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            if self._events:
                try:
                    found = await self._pool.fetch(
                        "SELECT request_id FROM results WHERE request_id = ANY($1)", list(self._events)
                    )
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    continue  # the database is away: try again
                for row in found:
                    for event in self._events.get(row["request_id"], ()):
                        event.set()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=1, max_size=10, command_timeout=10) as pool:
        app.state.pool, app.state.waiting = pool, Waiting(pool)
        waking = asyncio.create_task(app.state.waiting.wake())
        try:
            yield
        finally:
            waking.cancel()


app = database_app("request", _lifespan)


@app.post("/v1/requests", status_code=202)
async def submit(request: Request, idempotency_key: Annotated[str | None, Header()] = None) -> dict[str, Any]:
    """Commit the requests and their idempotency key together; the same key gives the same ids and stores nothing."""
    _check_caller(request)
    submitted = _read(await request.body())
    requests = submitted if isinstance(submitted, list) else [submitted]
    for one in requests:
        validator = VALIDATORS.get(one.get("type")) if isinstance(one, dict) else None
        if validator is None or not validator.is_valid(one.get("params", {})):
            raise HTTPException(422, "no such request type, or parameters that do not fit it")
    ids = [uuid7() for _ in requests]
    async with app.state.pool.acquire() as connection, connection.transaction():
        if idempotency_key is not None and not await connection.fetchval(
            "INSERT INTO idempotency_keys (key, request_ids) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING true",
            idempotency_key,
            ids,
        ):
            ids = await connection.fetchval("SELECT request_ids FROM idempotency_keys WHERE key = $1", idempotency_key)
        else:
            await connection.executemany(
                "INSERT INTO requests (request_id, type, params) VALUES ($1, $2, $3)",
                [
                    (request_id, one["type"], orjson.dumps(one.get("params", {})).decode())
                    for request_id, one in zip(ids, requests, strict=True)
                ],
            )
    return {"ids": [str(each) for each in ids], "id": str(ids[0]) if len(ids) == 1 else None}


@app.get("/v1/requests/{request_id}/result")
async def result(request: Request, request_id: UUID, wait: Annotated[float, Query(ge=0, le=60)] = 0) -> Response:
    """The result as it was delivered; 202 if it does not come in time."""
    _check_caller(request)
    try:
        body = await app.state.waiting.result(request_id, wait)
    except LookupError:
        raise HTTPException(404, f"there is no request {request_id}") from None
    if body is None:
        return Response(orjson.dumps({"request_id": str(request_id), "status": "queued"}), 202, _RETRY, _JSON)
    return Response(body[:-1] + ',"source":"database"}', 200, media_type=_JSON)


@app.get("/v1/settings")
async def settings(request: Request) -> dict[str, Any]:
    """The settings that crossed."""
    _check_caller(request)
    rows = await app.state.pool.fetch("SELECT name, value, version FROM settings ORDER BY name")
    return {"settings": [{**row, "value": orjson.loads(row["value"])} for row in rows]}


@app.get("/link/requests")
async def offer(request: Request, limit: Annotated[int, Query(ge=1, le=1000)]) -> Response:
    """Requests that are not confirmed, oldest first; offered until the other side confirms them."""
    await _from_link(request)
    rows = await app.state.pool.fetch(
        "SELECT request_id, type, params FROM requests WHERE taken_at IS NULL ORDER BY submitted_at LIMIT $1", limit
    )
    offered = [{**row, "request_id": str(row["request_id"]), "params": orjson.loads(row["params"])} for row in rows]
    return _to_link(request, {"requests": offered})


@app.post("/link/requests/taken")
async def taken(request: Request) -> Response:
    """Confirm requests: the other side has committed them."""
    ids = (await _from_link(request))["request_ids"]
    await app.state.pool.execute("UPDATE requests SET taken_at = now() WHERE request_id = ANY($1::uuid[])", ids)
    return _to_link(request, {})


@app.post("/link/results")
async def take_results(request: Request) -> Response:
    """Store results, all of them or none; of two for one request the first stays."""
    results = [(each["request_id"], each["body"]) for each in (await _from_link(request))["results"]]
    async with app.state.pool.acquire() as connection, connection.transaction():
        if WATCHED:
            await connection.executemany(
                "INSERT INTO arrivals (request_id) VALUES ($1)", [each[:1] for each in results]
            )
        await connection.execute(
            "INSERT INTO results (request_id, body) SELECT * FROM unnest($1::uuid[], $2::text[])"
            " ON CONFLICT (request_id) DO NOTHING",
            *zip(*results, strict=True),
        )
    return _to_link(request, {})


@app.post("/link/settings")
async def take_settings(request: Request) -> Response:
    """Store settings; of two versions the newer one stays."""
    changed = (await _from_link(request))["settings"]
    async with app.state.pool.acquire() as connection, connection.transaction():
        await connection.executemany(
            "INSERT INTO settings (name, value, version) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE"
            " SET value = excluded.value, version = excluded.version WHERE settings.version < excluded.version",
            [(each["name"], orjson.dumps(each["value"]).decode(), each["version"]) for each in changed],
        )
    return _to_link(request, {})


_JSON, _RETRY = "application/json", {"Retry-After": "1"}


def _check_caller(request: Request) -> None:
    if request.headers.get("authorization") != f"Bearer {os.environ['BENCH_API_KEY']}":
        raise HTTPException(401, "no API key, or one that is not known")


def _read(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        raise HTTPException(422, "the body is no JSON") from None


def _target(request: Request) -> str:
    return request.url.path + (f"?{request.url.query}" if request.url.query else "")


async def _from_link(request: Request) -> Any:
    """The content that the response network sent; raises unless its signature is right."""
    body = await request.body()
    signature = request.headers.get(HEADER, "")
    if not fits(os.environ["BENCH_LINK_KEY"], request.method, _target(request), body, signature):
        raise HTTPException(400, "the signature does not match")
    return _read(body) if body else None


def _to_link(request: Request, content: dict[str, Any]) -> Response:
    body = orjson.dumps(content)
    signature = sign(os.environ["BENCH_LINK_KEY"], request.method, _target(request), body)
    return Response(body, 200, {HEADER: signature}, _JSON)


if __name__ == "__main__":
    asyncio.run(serve(app, [Listener("127.0.0.1", int(os.environ["BENCH_PORT"]))]))
