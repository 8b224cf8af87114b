"""How many requests a second are answered end to end for a minute, without loss and without a growing backlog."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from bench.aims import Aim, beats, line
from bench.asks import fresh, submissions
from bench.contestants import Start, airlock, celery
from bench.figures import OURS, RIVAL, Figure, Line, Options, alternate
from bench.load.order import Order, Outcome
from bench.load.running import faults, load

SECONDS, WARM_UP, PATIENCE = 60.0, 5.0, 120.0
RATES = (25, 50, 75, 100, 125, 150, 200, 250, 300, 350, 400, 450, 500, 600, 700, 850, 1000, 1200, 1500, 2000)
FIRST, STRIDE = 500, 2
"""First rate of the search, and its step in `RATES` until it knows a sustained rate and one that is not."""
KEPT_UP = 0.98
"""Share of a rate that must be answered in time."""
GROWTH_SECONDS = 0.5
"""Growth of the backlog that is allowed from the second to the last quarter of the time, in seconds of requests."""
HOPELESS_SECONDS = 5.0
"""Backlog at which a try has failed, in seconds of requests."""


@dataclass(frozen=True)
class Try:
    """One rate, tried for the whole time."""

    rate: int
    outcome: Outcome
    reasons: tuple[str, ...]
    """Why it was not sustained; empty if it was."""

    def as_json(self) -> dict[str, object]:
        """All fields."""
        return {"rate": self.rate, "reasons": self.reasons, **asdict(self.outcome)}


class Sustained(Figure):
    """Requests a second, submitted one by one and read, that are answered end to end for 60 s with zero loss."""

    name = "sustained"
    rounds = 3

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each try starts its contestant anew. A round begins with the rate that the previous one found."""
        searches = {OURS: Search(OURS, airlock, options), RIVAL: Search(RIVAL, celery, options)}
        runs = {name: search.run for name, search in searches.items()}
        found = await alternate(runs, options.rounds, 0, options.say)
        return [
            line(
                "sustained end to end",
                "requests/s",
                [Aim(700), beats(RIVAL)],
                found,
                f"open loop for {_seconds(options):g} s, the highest sustained rate of those tried; accepted ="
                " answered = stored in both databases, none twice; no limit: a rate is asked for, not a speed",
                {name: [each.as_json() for each in search.tries] for name, search in searches.items()},
            )
        ]


class Search:
    """Searches the highest rate that a contestant sustains, from the rate that it sustained before."""

    def __init__(self, name: str, start: Start, options: Options) -> None:
        self._name, self._start, self._options = name, start, options
        self._at, self._stride = RATES.index(FIRST), STRIDE
        self.tries: list[Try] = []

    async def run(self) -> float:
        """One round; gives 0 if not even the lowest rate was sustained."""
        low, high, at = -1, len(RATES), self._at
        while high - low > 1:
            if await self._sustains(RATES[at]):
                low = at
            else:
                high = at
            at = following(low, high, self._stride)
        self._at, self._stride = max(low, 0), 1
        return float(RATES[low]) if low >= 0 else 0.0

    async def _sustains(self, rate: int) -> bool:
        directory = fresh(self._options.root, self._name)
        async with self._start(directory) as contestant:
            order = Order(
                contestant.port,
                submissions(answered=True),
                _seconds(self._options),
                rate=rate,
                warm_up=WARM_UP,
                patience=PATIENCE,
                headers=contestant.headers,
                most=int(HOPELESS_SECONDS * rate),
            )
            outcome = await load(order, directory / "load")
            reasons = behind(outcome, rate)
            if not outcome.wrong:
                reasons += await contestant.differences(outcome.good)
        self.tries.append(Try(rate, outcome, tuple(reasons)))
        self._options.say(f"{self._name} at {rate}/s: {'; '.join(reasons) or 'sustained'}, {outcome.latency_ms}")
        return not reasons


def following(low: int, high: int, stride: int) -> int:
    """Index of the next rate to try, between a sustained one (-1: none yet) and one that is not (len: none yet)."""
    if low < 0:
        return max(0, high - stride)
    if high == len(RATES):
        return min(low + stride, len(RATES) - 1)
    return (low + high) // 2


def behind(outcome: Outcome, rate: float) -> list[str]:
    """Reasons why a rate was not sustained: wrong answers, too few, a growing backlog, or a starved generator."""
    if outcome.gave_up:
        hopeless = f"more than {HOPELESS_SECONDS:g} s of requests were outstanding"
        return [f"after some {outcome.begun / rate:.0f} s: {faults(outcome) if outcome.problems else hopeless}"]
    reasons = [faults(outcome)] if outcome.wrong else []
    if outcome.late_ms > 1000:
        reasons.append(f"the generator began a request {outcome.late_ms:,.0f} ms too late")
    if outcome.rate < KEPT_UP * rate:
        reasons.append(f"{outcome.rate:,.1f} a second were answered")
    quarter = len(outcome.outstanding) // 4
    if quarter:
        before = statistics.fmean(outcome.outstanding[quarter : 2 * quarter])
        after = statistics.fmean(outcome.outstanding[-quarter:])
        if after > before + GROWTH_SECONDS * rate:
            reasons.append(f"the backlog grew from {before:,.0f} to {after:,.0f}")
    return reasons


def _seconds(options: Options) -> float:
    return max(3.0, SECONDS * options.scale)
