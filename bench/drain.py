"""Draining results across the link: from the outbox of one side until they are applied on the other."""

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import asyncpg

from bench.backlog import backlog, clear
from bench.celery_drain import CeleryDrain, celery_drain
from bench.figures import LIMIT, OURS, RIVAL, Figure, Line, NotMeasured, Options, alternate
from bench.processor_time import processor_seconds
from bench.stage import Stage, stage
from configuration.home import CLONE
from embedded.ports import free_port

RECORDS = 1_000_000
LOOK = 0.02
"""Seconds between two checks whether all have arrived."""
PATIENCE = 120.0
"""Seconds without progress after which a contestant has failed."""
SLOWEST = 500
"""Least records a second: slower contestants have failed."""


class Drain(Figure):
    """Records of 1 KB a second, with the outbox full at the start: sealed, sent, received and applied."""

    name = "drain"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Three contestants in turn on one stage, each with a full outbox; each record must arrive exactly once."""
        count = max(int(RECORDS * options.scale), 10_000)
        spent: dict[str, float] = {}
        async with stage(options.root / "drain") as airlock, celery_drain(airlock) as celery:
            measured = await alternate(
                {
                    OURS: lambda: _airlock(airlock, count, spent),
                    LIMIT: lambda: _plain(airlock, count),
                    RIVAL: lambda: _celery(celery, count),
                },
                options.rounds,
                0 if options.rounds == 1 else 1,
                options.say,
            )
        ours, limit, rival = (measured[name].median for name in (OURS, LIMIT, RIVAL))
        return [
            Line(
                what=f"drain {count:,} results of 1 KB, applied",
                unit="records/s",
                aim="≥ 20,000/s, ≥ 0.75 of the limit, ≥ 1.0 of Celery",
                met=ours >= 20_000 and ours >= 0.75 * limit and ours >= rival,
                measured=measured,
                note=f"{ours / limit:.2f} of the limit, {ours / rival:.2f} of Celery",
                details={"processor_microseconds_per_record": spent},
            )
        ]


async def drained(airlock: Stage, count: int) -> float:
    """Drain the backlog of ``count`` results; gives the seconds until the last one is applied.

    Raises `NotMeasured` if they stop coming or do not all arrive exactly once.
    """
    connection = await airlock.connect("request")
    try:
        before = await applied(connection)
        began = time.perf_counter()
        await airlock.begin_drain()
        await _until(lambda: applied(connection), before + count)
        seconds = time.perf_counter() - began
        stored = await connection.fetchval("SELECT count(*) FROM results WHERE epoch = 1")
        aside = await connection.fetchval("SELECT count(*) FROM quarantined_records")
    finally:
        await connection.close()
    if stored != before + count or aside:
        raise NotMeasured(f"{stored} results are there instead of {before + count}, {aside} are quarantined")
    return seconds


async def _airlock(airlock: Stage, count: int, spent: dict[str, float]) -> float:
    await clear(airlock)
    await backlog(airlock, 0, count)
    before = processor_seconds(airlock.supervisor.pids())
    seconds = await drained(airlock, count)
    after = processor_seconds(airlock.supervisor.pids())
    spent.clear()
    spent.update({who: round((after[who] - before.get(who, 0.0)) / count * 1e6, 2) for who in sorted(after)})
    return count / seconds


async def applied(connection: "asyncpg.Connection[asyncpg.Record]") -> int:
    """Number of results that are applied, by the stream's cursor, which is cheap to read."""
    found = await connection.fetchval(
        "SELECT coalesce(sum(records), 0) FROM received_batches JOIN incoming_streams USING (stream, epoch)"
        " WHERE stream = 'results' AND received_batches.sequence <= incoming_streams.applied"
    )
    return int(found)


async def _plain(airlock: Stage, count: int) -> float:
    await clear(airlock)
    await backlog(airlock, 0, count)
    port = str(free_port())
    receiver = await _plain_process("receive", port, airlock.databases.request)
    sender = await _plain_process("send", port, airlock.databases.response)
    assert sender.stdin is not None, "both are started with pipes"
    began = time.perf_counter()
    sender.stdin.write(b"\n")
    codes = await receiver.wait(), await sender.wait()
    seconds = time.perf_counter() - began
    connection = await airlock.connect("request")
    try:
        stored = await connection.fetchval("SELECT count(*) FROM results")
    finally:
        await connection.close()
    if codes != (0, 0) or stored != count:
        raise NotMeasured(f"the plain drain stored {stored} of {count} and ended with {codes}")
    return count / seconds


async def _plain_process(what: str, port: str, database: str) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "bench.plain_drain", what),
        env=os.environ | {"BENCH_PORT": port, "BENCH_DATABASE": database, "PYTHONPATH": str(CLONE)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None, "both are started with pipes"
    await process.stdout.readline()
    return process


async def _celery(celery: CeleryDrain, count: int) -> float:
    await celery.fill(count)
    request, response = await celery.connect("request"), await celery.connect("response")
    slowest = time.monotonic() + PATIENCE + count / SLOWEST
    try:
        began = time.perf_counter()
        await celery.begin()
        while await response.fetchval("SELECT EXISTS (SELECT FROM results WHERE NOT exported)"):
            if time.monotonic() > slowest:
                raise NotMeasured(f"Celery did not export {count:,} results in {PATIENCE + count / SLOWEST:.0f} s")
            await asyncio.sleep(LOOK)
        seconds = time.perf_counter() - began
        stored = await request.fetchval("SELECT count(*) FROM results")
    finally:
        await request.close()
        await response.close()
    if stored != count:
        raise NotMeasured(f"Celery stored {stored} of {count} results")
    return count / seconds


async def _until(arrived: Callable[[], Awaitable[int]], wanted: int) -> None:
    seen, moved = -1, time.monotonic()
    while (now := await arrived()) < wanted:
        if now != seen:
            seen, moved = now, time.monotonic()
        elif time.monotonic() - moved > PATIENCE:
            raise NotMeasured(f"{now} of {wanted} records arrived, and none for {PATIENCE:g} s")
        await asyncio.sleep(LOOK)
