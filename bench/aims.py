"""Aims: a number, or a share of another contestant's result; and by how much an aim is missed."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.figures import LIMIT, OURS, RIVAL, Line, Spread


@dataclass(frozen=True)
class Aim:
    """One bound: a multiple of the median of the contestant ``beside`` or, without one, a number in the line's unit."""

    bound: float
    at_most: bool = False
    beside: str = ""

    def reached(self, measured: Mapping[str, Spread]) -> float:
        """The value that is compared with the bound."""
        ours = measured[OURS].median
        if not self.beside:
            return ours
        other = measured[self.beside].median
        return ours / other if other else math.inf

    def is_met(self, measured: Mapping[str, Spread]) -> bool:
        """Whether the aim is met; False if the other contestant was not measured."""
        if self.beside and self.beside not in measured:
            return False
        reached = self.reached(measured)
        return reached <= self.bound if self.at_most else reached >= self.bound

    def text(self, unit: str) -> str:
        """The aim in words."""
        return f"{'≤' if self.at_most else '≥'} {self.amount(self.bound, unit)}"

    def amount(self, number: float, unit: str) -> str:
        """Format a number in this aim's unit."""
        return f"{number:.3g} × {self.beside}" if self.beside else f"{number:,.4g} {unit}"

    def short(self, measured: Mapping[str, Spread], unit: str) -> str:
        """By how much the aim is missed, in words."""
        if self.beside and self.beside not in measured:
            return f"{self.beside} was not measured"
        reached = self.reached(measured)
        text = f"{self.amount(reached, unit)} instead of {self.text(unit)}"
        if not self.bound:
            return text
        return f"{text}, {abs(reached - self.bound) / self.bound:.0%} {'over' if self.at_most else 'short'}"


def beats(contestant: str, *, at_most: bool = False) -> Aim:
    """The aim to be no worse than another contestant."""
    return Aim(1.0, at_most, contestant)


def line(
    what: str,
    unit: str,
    aims: Sequence[Aim],
    measured: Mapping[str, Spread],
    note: str = "",
    details: Mapping[str, object] | None = None,
    *,
    less_is_better: bool = False,
) -> Line:
    """Make a line that says whether all aims are met and, if not, by how much each is missed."""
    missed = [aim.short(measured, unit) for aim in aims if not aim.is_met(measured)]
    known = {name: measured[name] for name in (OURS, LIMIT, RIVAL) if name in measured}
    return Line(
        what,
        unit,
        "; ".join(aim.text(unit) for aim in aims),
        not missed,
        known,
        note,
        details or {},
        short="; ".join(missed),
        less_is_better=less_is_better,
    )
