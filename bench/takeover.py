"""Takeover: a worker is killed in the middle of a drain while another runs; the time until records flow again."""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

import psutil

from bench.backlog import backlog, clear
from bench.celery_drain import VISIBILITY_SECONDS, CeleryDrain, celery_drain
from bench.drain import LOOK, PATIENCE, applied
from bench.figures import OURS, RIVAL, Figure, Line, NotMeasured, Options, Spread
from bench.stage import Cast, Stage, stage

RECORDS = 400_000
MOST_SECONDS = 10.0
KINDS = ("response-worker", "request-worker")


class Takeover(Figure):
    """Seconds between SIGKILL to the worker that does the work and the next applied record."""

    name = "takeover"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each kind of worker, once per round; two of each run."""
        count = max(int(RECORDS * options.scale), 50_000)
        async with stage(options.root / "takeover", Cast(2, 2)) as airlock:
            ours = {kind: [await _taken_over(airlock, kind, count) for _ in range(options.rounds)] for kind in KINDS}
            async with celery_drain(airlock, workers=2, visibility=VISIBILITY_SECONDS) as celery:
                rival = [await _celery_taken_over(celery, count) for _ in range(options.rounds)]
        return [
            Line(
                what=f"{kind} killed in mid-drain: until records flow again",
                unit="s",
                aim=f"≤ {MOST_SECONDS:g}",
                met=max(taken) <= MOST_SECONDS + LOOK,
                measured={OURS: Spread(tuple(taken))} | ({RIVAL: Spread(tuple(rival))} if kind == KINDS[0] else {}),
                note=(
                    f"Celery with a visibility timeout of {VISIBILITY_SECONDS} s; its default is 3600 s"
                    if kind == KINDS[0]
                    else "no rival: nothing but the API applies there"
                ),
                less_is_better=True,
            )
            for kind, taken in ours.items()
        ]


async def _taken_over(airlock: Stage, kind: str, count: int) -> float:
    """Kill the worker of this kind that does the work; gives the longest time without a record afterwards."""
    await clear(airlock)
    await backlog(airlock, 0, count)
    connection = await airlock.connect("request")
    try:
        return await _killed(
            lambda: applied(connection), airlock.begin_drain, lambda: airlock.pids(kind), count, PATIENCE
        )
    finally:
        await connection.close()


async def _celery_taken_over(celery: CeleryDrain, count: int) -> float:
    """The same for Celery, with one export and two workers."""
    await celery.fill(count)
    connection = await celery.connect("request")

    async def stored() -> int:
        return int(await connection.fetchval("SELECT count(*) FROM results"))

    try:
        return await _killed(stored, lambda: celery.begin(1), celery.workers, count, PATIENCE + VISIBILITY_SECONDS)
    finally:
        await connection.close()


async def _killed(
    arrived: Callable[[], Awaitable[int]],
    begin: Callable[[], Awaitable[None]],
    workers: Callable[[], Mapping[str, int]],
    count: int,
    patience: float,
) -> float:
    """Begin, kill the busiest worker when a quarter has arrived, and wait for the rest, each exactly once."""
    before = _busy(workers())
    await begin()
    while await arrived() < count // 4:  # noqa: ASYNC110, nothing notifies us
        await asyncio.sleep(LOOK)
    after = _busy(workers())
    name = max(after, key=lambda each: after[each] - before.get(each, 0.0))
    os.killpg(workers()[name], signal.SIGKILL)  # the supervisor made each a group of its own
    longest, seen, moved = 0.0, await arrived(), time.monotonic()
    while seen < count:
        if (now := await arrived()) > seen:
            longest, seen, moved = max(longest, time.monotonic() - moved), now, time.monotonic()
        elif time.monotonic() - moved > patience:
            raise NotMeasured(f"no record for {patience:g} s after {name} was killed; {seen} of {count} are there")
        await asyncio.sleep(LOOK)
    if seen != count:
        raise NotMeasured(f"{seen} results are there instead of {count}")
    return longest


def _busy(workers: Mapping[str, int]) -> dict[str, float]:
    """Processor seconds of each worker and its children."""
    taken = {}
    for name, pid in workers.items():
        worker = psutil.Process(pid)
        times = [each.cpu_times() for each in (worker, *worker.children(recursive=True))]
        taken[name] = sum(each.user + each.system for each in times)
    return taken
