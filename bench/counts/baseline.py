"""The counts of the last release, and the comparison of present counts with them."""

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.counts.counting import Count, Counts
from configuration.version import VERSION

BASELINE = Path(__file__).with_name("baseline.json")
RECORD = 'python -m bench.counts --record --because "…"'
SHOWN = 100
"""Characters of a statement that are stored."""
OF_PYTHON = "python."
"""Prefix of counts that depend on the Python version."""

Statements = Mapping[str, Mapping[str, int]]
"""By step and network: statement → times."""


@dataclass(frozen=True)
class Measured:
    """The counts of one run."""

    counts: Counts
    statements: Statements

    def to_json(self, because: Mapping[str, str]) -> dict[str, Any]:
        """Contents of the baseline file and of ``--json``."""
        return {
            "version": VERSION,
            "python": python_version(),
            "counts": {
                name: {"value": round(count.value, 3), "unit": count.unit, "tolerance": count.tolerance}
                | ({"because": because[name]} if name in because else {})
                for name, count in sorted(self.counts.items())
            },
            "statements": {step: dict(sorted(_shortened(told).items())) for step, told in self.statements.items()},
        }


@dataclass(frozen=True)
class Baseline:
    """The counts of a release; ``because``: the reasons of those that had grown when they were recorded."""

    version: str
    python: str
    counts: Counts
    statements: Statements
    because: Mapping[str, str]

    @classmethod
    def read(cls, path: Path = BASELINE) -> "Baseline | None":
        """None if nothing was recorded yet."""
        if not path.exists():
            return None
        found = json.loads(path.read_text())
        counts = {name: Count(one["value"], one["unit"], one["tolerance"]) for name, one in found["counts"].items()}
        because = {name: one["because"] for name, one in found["counts"].items() if "because" in one}
        return cls(found["version"], found["python"], counts, found["statements"], because)


@dataclass
class Comparison:
    """Sentences about the differences; the check fails if there is a complaint."""

    complaints: list[str] = field(default_factory=list)
    grew: list[str] = field(default_factory=list)
    """Names of the counts that grew."""
    can_be_lowered: list[str] = field(default_factory=list)
    not_compared: list[str] = field(default_factory=list)


def compare(measured: Measured, baseline: Baseline | None) -> Comparison:
    """Find counts that grew beyond their tolerance, that shrank, that are new and that are missing."""
    found = Comparison()
    if baseline is None:
        found.complaints.append("Nothing is recorded to compare with. Record it: python -m bench.counts --record")
        return found
    for name in sorted(measured.counts.keys() | baseline.counts.keys()):
        now, before = measured.counts.get(name), baseline.counts.get(name)
        if name.startswith(OF_PYTHON) and baseline.python != python_version():
            found.not_compared.append(f"{name}: recorded with Python {baseline.python}, this is {python_version()}")
        elif now is None:
            found.complaints.append(f"{name} is not counted any more. Record that with the reason: {RECORD}")
        elif before is None:
            found.complaints.append(f"{name} is new: {_said(now)}. Record it: python -m bench.counts --record")
        elif now.value > before.value * (1 + now.tolerance) + _ROUNDING:
            found.grew.append(name)
            found.complaints.append(_complaint(name, now, before, measured, baseline))
        elif now.value < before.value * (1 - now.tolerance) - _ROUNDING:
            found.can_be_lowered.append(
                f"{name}: {_said(now)}, in {baseline.version} it was {_number(before.value)}."
                " The baseline can be lowered: python -m bench.counts --record"
            )
    return found


_ROUNDING = 0.001
"""The baseline keeps three decimals."""


def _complaint(name: str, now: Count, before: Count, measured: Measured, baseline: Baseline) -> str:
    step = name.rpartition(".")[0]
    allowed = f"{now.tolerance:.0%} is allowed" if now.tolerance else "it may not grow"
    more = [
        f"    {times:+}x {statement}"
        for statement, times in _more_told(measured.statements.get(step, {}), baseline.statements.get(step, {}))
    ]
    return "\n".join(
        [
            f"{name}: {_said(now)}, in {baseline.version} it was {_number(before.value)}; {allowed}."
            f" Make it cheaper, or record the new figure with the reason: {RECORD}",
            *more,
        ]
    )


def _more_told(now: Mapping[str, int], before: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """Statements that are sent more or less often than before."""
    shortened = _shortened(now)
    for statement in sorted(shortened.keys() | before.keys()):
        if difference := shortened.get(statement, 0) - before.get(statement, 0):
            yield statement, difference


def _shortened(told: Mapping[str, int]) -> Counter[str]:
    shortened: Counter[str] = Counter()
    for statement, times in told.items():
        shortened[statement if len(statement) <= SHOWN else statement[: SHOWN - 1] + "…"] += times
    return shortened


def _said(count: Count) -> str:
    return f"{_number(count.value)} {count.unit}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def python_version() -> str:
    """Major and minor version, on which allocations depend."""
    return ".".join(platform.python_version_tuple()[:2])
