"""Memory of Airlock's own processes while a backlog of results grows and is drained."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import psutil

from bench.backlog import backlog, clear
from bench.drain import drained
from bench.figures import OURS, Figure, Line, Options, Spread
from bench.stage import Stage, stage

BACKLOGS = (10_000, 100_000, 1_000_000, 10_000_000)
MOST_MB = 150
LOOK = 0.2
"""Seconds between two samples."""
OWN = ("request-api", "request-worker", "response-api", "response-worker")


class Memory(Figure):
    """Peak of resident memory of each process, backlog by backlog. The same processes drain all of them, so memory that
    is not released counts as growth.
    """

    name = "memory"
    rounds = 1

    async def measure(self, options: Options) -> Sequence[Line]:
        """One pass: a larger backlog says more than a repetition."""
        sizes = [max(int(size * options.scale), 1000) for size in BACKLOGS]
        peaks: dict[int, dict[str, float]] = {}
        async with stage(options.root / "memory") as airlock:
            for size in sizes:
                await clear(airlock)
                async with highest(airlock) as seen:
                    await backlog(airlock, 0, size)
                    await drained(airlock, size)
                peaks[size] = dict(seen)
                options.say(f"{size:,}: " + ", ".join(f"{name} {peak:.0f} MB" for name, peak in sorted(seen.items())))
        growth = {name: max(peaks[size][name] for size in sizes) - peaks[sizes[0]][name] for name in OWN}
        worst = max(growth, key=lambda name: growth[name])
        return [
            Line(
                what=f"memory of a process, backlog of {sizes[0]:,} to {sizes[-1]:,} results",
                unit="MB more",
                aim=f"≤ {MOST_MB}",
                met=growth[worst] <= MOST_MB,
                measured={OURS: Spread((growth[worst],))},
                note=f"the most: {worst}; no limit and no rival",
                details={"peak_mb": {str(size): peaks[size] for size in sizes}},
                less_is_better=True,
            )
        ]


@asynccontextmanager
async def highest(airlock: Stage) -> AsyncIterator[dict[str, float]]:
    """Peak of resident megabytes of each own process during the block."""
    seen: dict[str, float] = dict.fromkeys(OWN, 0.0)

    def look() -> None:
        for name, pid in airlock.pids(*OWN).items():
            with suppress(psutil.Error):
                seen[name] = max(seen.get(name, 0.0), psutil.Process(pid).memory_info().rss / 1e6)

    async def watch() -> None:
        while True:
            look()
            await asyncio.sleep(LOOK)

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        look()
        watching.cancel()
