"""The base of all figures: contestants in alternating rounds, medians with their spread, lines of the table."""

import statistics
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

OURS, LIMIT, RIVAL = "airlock", "limit", "celery"
"""The contestants: Airlock; the same work without orchestration and framework; Celery doing the same job."""

QUICK_SCALE = 0.05
"""Enough to see that everything works; the numbers mean nothing."""

Say = Callable[[str], None]
"""Reports progress."""


@dataclass(frozen=True)
class Options:
    """How thoroughly to measure. ``scale`` multiplies records and seconds; results count only with 1."""

    rounds: int
    scale: float
    root: Path
    """An empty directory for all files."""
    say: Say


@dataclass(frozen=True)
class Spread:
    """One contestant's rounds: the median counts, the spread says how reliable it is."""

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
    """One line of the table: a figure with its limit, its rival, and whether its aim is met."""

    what: str
    unit: str
    aim: str
    met: bool
    measured: Mapping[str, Spread]
    """By contestant; Airlock is always present."""
    note: str = ""
    """How the figure was measured, or why it has no limit or no rival."""
    details: Mapping[str, object] = field(default_factory=dict)
    """Goes into the JSON only."""
    short: str = ""
    """By how much it misses its aim, in words; empty if it meets it."""
    less_is_better: bool = False


class Figure(ABC):
    """A measurement: it starts what it needs on free ports, and stops it."""

    name: str
    """Its name on the command line. The first sentence of the class's docstring says what it measures."""
    rounds: int = 5
    """Default number of rounds: odd, and smaller if a round takes minutes."""

    @abstractmethod
    async def measure(self, options: Options) -> Sequence[Line]:
        """Measure. Raises `NotMeasured` with the reason if that is impossible."""


class NotMeasured(Exception):
    """A figure could not be measured; the message says why and what to do."""


Result = TypeVar("Result")


async def in_turn(
    contestants: Mapping[str, Callable[[], Awaitable[Result]]],
    rounds: int,
    warm_up: int,
    say: Callable[[str, Result], None],
) -> dict[str, list[Result]]:
    """Run each contestant once per round, in turn, so that other load on the machine affects all of them alike.

    The first ``warm_up`` rounds do not count.
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
    """As `in_turn`, for runs that give one number."""
    taken = await in_turn(contestants, rounds, warm_up, lambda what, result: say(f"{what} {result:,.4g}"))
    return {name: Spread(tuple(results)) for name, results in taken.items()}
