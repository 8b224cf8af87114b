"""Whether the cost of a drain depends on how much is stored already."""

from collections.abc import Sequence

from bench.backlog import backlog, clear, history
from bench.drain import drained
from bench.figures import OURS, Figure, Line, Options, Spread
from bench.processor_time import processor_seconds
from bench.stage import stage

ALREADY = (10_000, 100_000, 1_000_000, 10_000_000)
DRAINED = 100_000
MOST = 0.2


class Growth(Figure):
    """Time per result of 1 KB drained and applied, with 10 thousand to 10 million small ones stored already."""

    name = "growth"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """One drain per round at each size; a first one does not count."""
        sizes = [max(int(size * options.scale), 1000) for size in ALREADY]
        count = max(int(DRAINED * min(1.0, options.scale * 10)), 10_000)
        there, spreads = 0, {}
        spent: dict[str, dict[str, float]] = {}
        async with stage(options.root / "growth") as airlock:
            await clear(airlock)
            await backlog(airlock, there, count)
            await drained(airlock, count)
            there += count
            for size in sizes:
                if size > there:
                    await history(airlock, there, size - there)
                    there = size
                taken = []
                for _ in range(options.rounds):
                    await backlog(airlock, there, count)
                    before = processor_seconds(airlock.supervisor.pids())
                    taken.append(await drained(airlock, count) / count * 1e6)
                    after = processor_seconds(airlock.supervisor.pids())
                    spent[str(size)] = {
                        who: round((after[who] - before.get(who, 0.0)) / count * 1e6, 2) for who in sorted(after)
                    }
                    there += count
                spreads[size] = Spread(tuple(taken))
                options.say(f"{size:,} there: {spreads[size].median:.1f} µs a record")
        least = min(spread.median for spread in spreads.values())
        most = max(spread.median for spread in spreads.values())
        return [
            Line(
                what=f"time per result drained with {sizes[0]:,} to {sizes[-1]:,} in the tables",
                unit="highest / lowest",
                aim=f"≤ {1 + MOST:g}",
                met=most <= least * (1 + MOST),
                measured={OURS: Spread((most / least,))},
                note=", ".join(f"{size:,}: {spread.median:.1f} µs" for size, spread in spreads.items()),
                details={
                    "microseconds": {str(size): spread.rounds for size, spread in spreads.items()},
                    "processor_microseconds_in_the_last_round": spent,
                },
                less_is_better=True,
            )
        ]
