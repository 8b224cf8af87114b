"""How many cached results a second are read."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from bench.aims import Aim, line
from bench.asks import submissions
from bench.contestants import STARTS, Contestant
from bench.figures import LIMIT, OURS, Figure, Line, NotMeasured, Options, Spread, in_turn
from bench.load.order import Ask, Order, Outcome
from bench.load.running import clean_load
from chaos.connection import Connections, as_call

CONNECTIONS = 64
SECONDS, WARM_UP = 5.0, 1.0
RESULTS = 50
"""Distinct results that are read in turn."""


class Read(Figure):
    """Reads a second of results that are cached, at 64 connections."""

    name = "read"

    async def measure(self, options: Options) -> Sequence[Line]:
        """All contestants run at the same time and idle while another is read: reading changes nothing."""
        async with AsyncExitStack() as stack:
            there = {
                name: await stack.enter_async_context(start(options.root / name)) for name, start in STARTS.items()
            }
            results = {
                name: await _results(contestant, options.root / name / "made")
                for name, contestant in there.items()
                if name != LIMIT
            }
            bodies = await _bodies(there[OURS], results[OURS])
            await _keep(there[LIMIT], bodies)
            results[LIMIT] = results[OURS]
            runs = {name: partial(_one, contestant, name, results[name], options) for name, contestant in there.items()}
            hits = await _hits(there[OURS])
            taken = await in_turn(runs, options.rounds, 1, lambda what, got: options.say(f"{what} {got.rate:,.0f}/s"))
            hits = await _hits(there[OURS]) - hits
        measured = {name: Spread(tuple(each.rate for each in outcomes)) for name, outcomes in taken.items()}
        size = sum(len(body) for body in bodies.values()) // len(bodies)
        note = (
            f"{CONNECTIONS} connections, {RESULTS} results of {size} bytes; limit: a route that returns the same bytes"
            f" from Redis and asks for no key; Celery's API reads them from PostgreSQL. The cache answered {hits:,}"
            " times; where Redis takes too long, as on an overloaded machine, the database does"
        )
        details = {name: [vars(each) for each in outcomes] for name, outcomes in taken.items()}
        return [line("cached result read", "calls/s", [Aim(0.7, beside=LIMIT)], measured, note, details)]


async def _one(contestant: Contestant, name: str, ids: Sequence[str], options: Options) -> Outcome:
    asks = tuple(Ask("GET", _path(each), contains=each) for each in ids)
    order = Order(
        contestant.port,
        asks,
        max(1.0, SECONDS * options.scale),
        connections=CONNECTIONS,
        warm_up=WARM_UP * options.scale,
        headers=contestant.headers,
    )
    return await clean_load(order, options.root / name / "load")


async def _results(contestant: Contestant, directory: Path) -> list[str]:
    """Ids of requests whose results were read once, so that they are in the cache, if there is one."""
    asks = submissions(answered=True)
    order = Order(contestant.port, asks, RESULTS / 25, rate=25, headers=contestant.headers)
    await clean_load(order, directory)
    connection = await asyncpg.connect(contestant.request_database)
    try:
        return [str(row[0]) for row in await connection.fetch("SELECT request_id FROM results ORDER BY request_id")]
    finally:
        await connection.close()


async def _bodies(contestant: Contestant, ids: Sequence[str]) -> dict[str, bytes]:
    """The API's answers, by request id."""
    connections, bodies = Connections(contestant.port), {}
    for each in ids:
        status, bodies[each] = await connections.call(as_call("GET", _path(each), "", contestant.headers))
        if status != 200:
            raise NotMeasured(f"a result that is there was answered with {status}: {bodies[each].decode()}")
    return bodies


async def _keep(contestant: Contestant, bodies: dict[str, bytes]) -> None:
    async with Redis.from_url(contestant.redis_url) as redis:
        await redis.mset(bodies)


async def _hits(contestant: Contestant) -> int:
    """Number of keys that its Redis found so far."""
    async with Redis.from_url(contestant.redis_url) as redis:
        return int((await redis.info("stats"))["keyspace_hits"])


def _path(request_id: str) -> str:
    return f"/v1/requests/{request_id}/result"
