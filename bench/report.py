"""The report of a run: as JSON, compared with an earlier run, as rows and sentences."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bench.figures import LIMIT, OURS, RIVAL, Line, Spread

FORMAT = 1
"""Increase it when an older reader would misread the JSON."""
COLUMNS = ("figure", OURS, LIMIT, f"{RIVAL} (rival)", "to limit", "to rival", "aim", "met?")
_NONE = "–"  # noqa: RUF001


@dataclass(frozen=True)
class Report:
    """All figures of one run."""

    date: str
    """When it began, RFC 3339."""
    machine: Mapping[str, str]
    scale: float
    lines: Mapping[str, Sequence[Line]]
    """By figure."""
    not_measured: Mapping[str, str] = field(default_factory=dict)
    """By figure, why."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """By figure, duration of the measurement."""

    def as_json(self) -> dict[str, Any]:
        """Everything, with every round."""
        return {
            "format": FORMAT,
            "date": self.date,
            "machine": dict(self.machine),
            "scale": self.scale,
            "figures": {
                name: {
                    "seconds": round(self.seconds.get(name, 0.0), 1),
                    "lines": [_line_as_json(each) for each in self.lines.get(name, ())],
                    **({"not_measured": self.not_measured[name]} if name in self.not_measured else {}),
                }
                for name in [*self.lines, *(each for each in self.not_measured if each not in self.lines)]
            },
        }

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the output of `as_json`. Raises `ValueError` for anything else."""
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise ValueError(f"it is not what `airlock bench --json` writes, format {FORMAT}")
        try:
            figures = content["figures"]
            return cls(
                content["date"],
                content["machine"],
                content["scale"],
                {name: [_line_from_json(each) for each in figure["lines"]] for name, figure in figures.items()},
                {name: figure["not_measured"] for name, figure in figures.items() if "not_measured" in figure},
                {name: figure["seconds"] for name, figure in figures.items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is damaged: {error}") from None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file. Raises `ValueError` with a message that names it."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as an earlier run: {error}") from None

    @property
    def all_lines(self) -> list[Line]:
        return [each for lines in self.lines.values() for each in lines]


def rows(report: Report) -> list[tuple[str, ...]]:
    """Rows of the table, with `COLUMNS`: medians, with the lowest and the highest round."""
    return [
        (
            f"{each.what}, {each.unit}{' (less is better)' if each.less_is_better else ''}",
            *(_cell(each.measured.get(name)) for name in (OURS, LIMIT, RIVAL)),
            _ratio(each, LIMIT),
            _ratio(each, RIVAL),
            each.aim or _NONE,
            (_NONE if not each.aim else "yes" if each.met else "NO"),
        )
        for each in report.all_lines
    ]


def falls_short(report: Report) -> list[str]:
    """A sentence for each missed aim and for each figure that was not measured."""
    said = [f"{each.what} falls short: {each.short or _reached(each)}" for each in report.all_lines if not each.met]
    return said + [f"{name} was not measured: {reason}" for name, reason in report.not_measured.items()]


def _reached(line: Line) -> str:
    return f"{number(line.measured[OURS].median)} {line.unit}, the aim is {line.aim}"


def notes(report: Report) -> list[str]:
    """How each figure was measured."""
    return [f"{each.what}: {each.note}" for each in report.all_lines if each.note]


def comparison(report: Report, earlier: Report) -> list[tuple[str, ...]]:
    """Rows of figures that both runs measured: figure, Airlock then, Airlock now, ratio, verdict.

    A difference within the spread of the runs means nothing.
    """
    before = {each.what: each for each in earlier.all_lines}
    compared: list[tuple[str, ...]] = []
    for each in report.all_lines:
        if each.what not in before:
            continue
        old, new = before[each.what].measured[OURS], each.measured[OURS]
        ratio = f"{new.median / old.median:.2f} ×" if old.median else _NONE
        compared.append((f"{each.what}, {each.unit}", _cell(old), _cell(new), ratio, _meaning(each, old, new)))
    return compared


def _meaning(line: Line, old: Spread, new: Spread) -> str:
    if new.lowest <= old.highest and old.lowest <= new.highest:
        return "within the spread"
    return "better" if (new.median < old.median) == line.less_is_better else "WORSE"


def number(amount: float) -> str:
    """Three significant digits, with thousands separators."""
    digits = 0 if abs(amount) >= 100 else 1 if abs(amount) >= 10 else 2
    return f"{amount:,.{digits}f}"


def _cell(spread: Spread | None) -> str:
    if spread is None:
        return _NONE
    if len(spread.rounds) == 1:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.lowest)} to {number(spread.highest)})"


def _ratio(line: Line, other: str) -> str:
    beside = line.measured.get(other)
    return f"{line.measured[OURS].median / beside.median:.2f} ×" if beside and beside.median else _NONE


def _line_as_json(line: Line) -> dict[str, Any]:
    measured = {
        name: {
            "median": spread.median,
            "lowest": spread.lowest,
            "highest": spread.highest,
            "rounds": list(spread.rounds),
        }
        for name, spread in line.measured.items()
    }
    return {**vars(line), "measured": measured, "details": dict(line.details)}


def _line_from_json(content: Mapping[str, Any]) -> Line:
    measured = {name: Spread(tuple(each["rounds"])) for name, each in content["measured"].items()}
    return Line(**{**content, "measured": measured})
