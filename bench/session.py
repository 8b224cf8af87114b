"""One run of the measurements: figure after figure, each in a directory of its own."""

import asyncio
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from bench.figures import Figure, Line, NotMeasured, Options, Say
from bench.machine import describe_machine
from bench.report import Report
from chaos.running import CannotRun
from models.errors import AirlockError

INTERRUPTED = "interrupted"


@dataclass
class Session:
    """The figures to measure, and the results so far, which an interrupted run still reports."""

    figures: Sequence[Figure]
    root: Path
    say: Say
    rounds: int | None = None
    """Rounds of every figure; None for each figure's own number."""
    scale: float = 1.0
    machine: Callable[[], dict[str, str]] = describe_machine
    _lines: dict[str, Sequence[Line]] = field(default_factory=dict)
    _not_measured: dict[str, str] = field(default_factory=dict)
    _seconds: dict[str, float] = field(default_factory=dict)
    _began: datetime = field(default_factory=lambda: datetime.now(UTC))

    async def run(self) -> None:
        """Measure all. A cancellation stops everything and marks the figures that were not measured."""
        for number, figure in enumerate(self.figures, 1):
            self.say(f"{figure.name} ({number} of {len(self.figures)})")
            begin = time.monotonic()
            try:
                self._lines[figure.name] = await self._measured(figure)
            except (NotMeasured, CannotRun, AirlockError) as error:
                self._cannot(figure, str(error))
            except Exception as error:  # a figure that fails must not cost the results of the others
                self.say("".join(traceback.format_exception(error)).rstrip())
                self._cannot(figure, f"{type(error).__name__}: {error}")
            except asyncio.CancelledError:
                self._not_measured.update({each.name: INTERRUPTED for each in self.figures[number - 1 :]})
                raise
            finally:
                self._seconds[figure.name] = time.monotonic() - begin

    def _cannot(self, figure: Figure, reason: str) -> None:
        self._not_measured[figure.name] = reason
        self.say(f"{figure.name} could not be measured: {reason}")

    async def _measured(self, figure: Figure) -> Sequence[Line]:
        root = self.root / figure.name
        root.mkdir(parents=True, mode=0o755)
        options = Options(self.rounds or figure.rounds, self.scale, root, lambda text: self.say(f"  {text}"))
        lines = await figure.measure(options)
        await asyncio.to_thread(shutil.rmtree, root, ignore_errors=True)  # ten million rows fill a disk
        return lines

    def report(self) -> Report:
        """The report of what was measured so far."""
        date = self._began.isoformat(timespec="seconds")
        return Report(date, self.machine(), self.scale, self._lines, self._not_measured, self._seconds)
