"""What every measurement has in common: contestants in alternating rounds, medians with their spread, one line each."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

OURS, LIMIT, RIVAL = "airlock", "limit", "celery"
"""Who is measured: Airlock; the same work with no orchestration and no framework; Celery doing the same job."""

QUICK_SCALE = 0.05
"""Enough to see that everything works, too little to say anything."""

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
    short: str = ""
    """By how much it falls short of its aim, in words, where it does."""
    less_is_better: bool = False


class Figure(ABC):
    """A measurement by itself: starts what it needs, on free ports, and stops it."""

    name: str
    """As it is named on the command line. The first line of the class's docstring says what it measures."""
    rounds: int = 5
    """How many there are unless the command line says otherwise: an odd number, fewer where one takes minutes."""

    @abstractmethod
    async def measure(self, options: Options) -> Sequence[Line]:
        """Measure; raises `NotMeasured` with the reason when it cannot."""


class NotMeasured(Exception):
    """A figure could not be measured: what happened and what to do."""


Result = TypeVar("Result")


async def in_turn(
    contestants: Mapping[str, Callable[[], Awaitable[Result]]],
    rounds: int,
    warm_up: int,
    say: Callable[[str, Result], None],
) -> dict[str, list[Result]]:
    """Let each contestant run once per round, in turn, so that what else the machine does falls on all of them alike.

    The first ``warm_up`` rounds are not counted.
    """
    taken: dict[str, list[Result]] = {name: [] for name in contestants}
    for number in range(1 - warm_up, rounds + 1):
        for name, run in contestants.items():
            result = await run()
            if number > 0:
                taken[name].append(result)
                say(f"round {number} of {rounds}: {name}", result)
    return taken


async def alternate(
    contestants: Mapping[str, Callable[[], Awaitable[float]]], rounds: int, warm_up: int, say: Say
) -> dict[str, Spread]:
    """The same for contestants of which each run gives one number."""
    taken = await in_turn(contestants, rounds, warm_up, lambda what, result: say(f"{what} {result:,.4g}"))
    return {name: Spread(tuple(results)) for name, results in taken.items()}
