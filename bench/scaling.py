"""More workers of each kind, and a second request API, on the same queues: no slower, no duplicates."""

from collections.abc import Sequence

from bench.backlog import backlog, clear
from bench.drain import drained
from bench.figures import OURS, Figure, Line, Options, Spread
from bench.stage import Cast, stage

RECORDS = 200_000
WORKERS = (1, 2, 4, 8)
ALLOWED = 0.9
"""Share of one worker's throughput below which it counts as slower."""


class Scaling(Figure):
    """The drain's throughput with two, four and eight workers relative to one. A stream has one sealer and one applier
    at a time, so more workers are for availability and for executing.
    """

    name = "scaling"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Workers are added on one stage, so there is no alternation."""
        count = max(int(RECORDS * options.scale), 10_000)
        spreads: dict[int, Spread] = {}
        async with stage(options.root / "scaling") as airlock:
            await clear(airlock)
            await backlog(airlock, 0, count)
            await drained(airlock, count)
            for workers in WORKERS:
                await airlock.add(Cast(workers, workers, min(workers, 2)))
                rates = []
                for _ in range(options.rounds):
                    await clear(airlock)
                    await backlog(airlock, 0, count)
                    rates.append(count / await drained(airlock, count))
                spreads[workers] = Spread(tuple(rates))
                options.say(f"{workers} workers of each kind: {spreads[workers].median:,.0f} records/s")
        one = spreads[1].median
        return [
            Line(
                what=f"drain with {workers} workers of each kind and {min(workers, 2)} request APIs",
                unit="of one worker's rate",
                aim="no slower, nothing doubled",
                met=spread.median >= ALLOWED * one,
                measured={OURS: Spread(tuple(rate / one for rate in spread.rounds))},
                note=f"{spread.median:,.0f} records/s; {count:,} results, each there once",
                details={"records_per_second": spread.rounds},
            )
            for workers, spread in spreads.items()
            if workers > 1
        ]
