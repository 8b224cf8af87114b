"""The fate of each request in the Celery build, by its databases and its broker."""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
from redis.asyncio import Redis

from bench.celery.profiles import Profile
from bench.celery.servers import BROKER, Pipeline
from chaos.airports import expected
from chaos.judging import Census, Discrepancy, Fate, judge_answers, judge_census, judge_settings
from chaos.ledger import Ledger

QUEUES, UNACKNOWLEDGED = ("celery", "link"), "unacked"
"""Keys of the broker: waiting messages, and delivered ones without acknowledgement."""
ACCEPTED = "requests of the request network"
"""The place that has a request since its acceptance."""


@dataclass(frozen=True)
class Found:
    """Both databases and the broker after a run."""

    census: Census
    settings: dict[str, Any]
    pending: frozenset[str]
    """Ids that will be processed further: a row that a pull, export or sweep will take, or a message in the broker."""
    executed_again: int
    """Repeated executions. They only read, so they are harmless."""
    delivered_again: int
    """Results that the request network received again and dropped."""
    messages: int
    """In the broker at the end."""
    arrived: dict[str, float] = field(default_factory=dict)
    """Request id → Unix time, in seconds, when the request network stored the result."""


async def look(pipeline: Pipeline, profile: Profile) -> Found:
    """Count."""
    request = await asyncpg.connect(pipeline.databases.request)
    response = await asyncpg.connect(pipeline.databases.response)
    try:
        asked = await _ids(request, "SELECT request_id FROM requests")
        answered = await _ids(request, "SELECT request_id FROM results")
        taken = await _ids(response, "SELECT request_id FROM requests")
        executed = await _ids(response, "SELECT request_id FROM results")
        executions = await _ids(response, "SELECT request_id FROM executions")
        arrivals = await _ids(request, "SELECT request_id FROM arrivals")
        pending = await _ids(request, "SELECT request_id FROM requests WHERE taken_at IS NULL")
        pending += await _ids(response, "SELECT request_id FROM results WHERE NOT exported")
        if profile.sweep_after is not None:
            pending += taken - executed
        keys = await request.fetch("SELECT key, request_ids FROM idempotency_keys")
        settings = await request.fetch("SELECT name, value FROM settings")
        arrived = await request.fetch("SELECT request_id::text, extract(epoch FROM received_at)::float8 FROM results")
    finally:
        await request.close()
        await response.close()
    messages, meant = await _broker(f"redis://127.0.0.1:{pipeline.redis_port}/{BROKER}")
    places = {
        ACCEPTED: asked,
        "requests of the response network": taken,
        "results of the response network": executed,
        "results of the request network": answered,
    }
    return Found(
        census=Census(
            places,
            frozenset({ACCEPTED}),
            {row["key"]: [str(each) for each in row["request_ids"]] for row in keys},
        ),
        settings={row["name"]: json.loads(row["value"]) for row in settings},
        pending=frozenset(pending) | meant,
        executed_again=executions.total() - len(executions),
        delivered_again=arrivals.total() - len(arrivals),
        messages=messages,
        arrived={request_id: at for request_id, at in arrived},
    )


def judge(ledger: Ledger, found: Found) -> list[Discrepancy]:
    """Judge by the rules for Airlock, with one more distinction.

    A request without a result at the end is *unanswered* if it will be processed further, however late, and *lost*
    otherwise. Each is named once.
    """
    named: dict[tuple[str, Fate], Discrepancy] = {}
    for discrepancy in judge_answers(ledger, expected):
        if discrepancy.fate is Fate.UNANSWERED and discrepancy.what not in ledger.sent:
            discrepancy = _late_or_lost(discrepancy, found)
        named[discrepancy.what, discrepancy.fate] = discrepancy
    without_result = {what for what, fate in named if fate in (Fate.LOST, Fate.UNANSWERED)}
    for discrepancy in (*judge_census(ledger, found.census), *judge_settings(ledger, found.settings)):
        if discrepancy.what not in without_result:
            named.setdefault((discrepancy.what, discrepancy.fate), discrepancy)
    return list(named.values())


def _late_or_lost(discrepancy: Discrepancy, found: Found) -> Discrepancy:
    """For an accepted request whose result was not read. (A submission without an answer was never accepted.)"""
    if discrepancy.what in found.arrived:
        return replace(discrepancy, found="one that came too late to be read")
    if discrepancy.what in found.pending:
        return replace(discrepancy, found="none yet: a message or a row waits to be taken up again")
    return replace(discrepancy, fate=Fate.LOST, found="none, and nothing that would produce one")


async def _ids(connection: "asyncpg.Connection[Any]", query: str) -> Counter[str]:
    return Counter(str(row[0]) for row in await connection.fetch(query))


async def _broker(url: str) -> tuple[int, frozenset[str]]:
    async with Redis.from_url(url) as redis:
        waiting = [json.loads(each) for queue in QUEUES for each in await redis.lrange(queue, 0, -1)]
        held = [json.loads(each)[0] for each in (await redis.hgetall(UNACKNOWLEDGED)).values()]
    messages = [*waiting, *held]
    return len(messages), frozenset(arguments(messages))


def arguments(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Request ids in the arguments of tasks. See Celery's message protocol, version 2."""
    for message in messages:
        positional = json.loads(base64.b64decode(message["body"]))[0]
        for each in positional:
            yield from each if isinstance(each, list) else ()
