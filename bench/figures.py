"""What every measurement has in common: contestants in alternating rounds, medians with their spread, one line each."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OURS, LIMIT, RIVAL = "airlock", "limit", "celery"
"""Who is measured: Airlock; the same work with no orchestration and no framework; Celery doing the same job."""

Say = Callable[[str], None]
"""Tells whoever waits how far it is."""


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure. ``scale`` multiplies records and seconds: 1 for figures that count, less to look."""

    rounds: int
    scale: float
    root: Path
    """An empty directory for everything that is made."""
    say: Say


@dataclass(frozen=True)
class Spread:
    """One contestant's rounds: what counts is the median, how far to trust it is the spread."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def lowest(self) -> float:
        return min(self.rounds)

    @property
    def highest(self) -> float:
        return max(self.rounds)


@dataclass(frozen=True)
class Line:
    """One line of the table: a figure with its limit and its rival beside it, and whether its aim is met."""

    what: str
    unit: str
    aim: str
    met: bool
    measured: Mapping[str, Spread]
    """By contestant; Airlock is always there."""
    note: str = ""
    """What the figure was measured with, or why there is no limit or no rival."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Goes into the JSON only."""


class Figure(ABC):
    """A measurement by itself: starts what it needs, on free ports, and stops it."""

    name: str
    """As it is named on the command line."""

    @abstractmethod
    async def measure(self, options: Options) -> Sequence[Line]:
        """Measure; raises `NotMeasured` with the reason when it cannot."""


class NotMeasured(Exception):
    """A figure could not be measured: what happened and what to do."""


async def alternate(
    contestants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int, warm_up: int, say: Say
) -> dict[str, Spread]:
    """Let each contestant run once per round, in turn, so that what else the machine does falls on all of them alike.

    The first ``warm_up`` rounds are not counted.
    """
    taken: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(1 - warm_up, rounds + 1):
        for name, run in contestants.items():
            result = await run()
            if number > 0:
                taken[name].append(result)
                say(f"round {number} of {rounds}: {name} {result:,.4g}")
    return {name: Spread(tuple(results)) for name, results in taken.items()}
