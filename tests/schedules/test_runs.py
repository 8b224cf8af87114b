"""Which of the runs that Temporal knows did a step."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models.streams import Network
from models.traces import TraceStep
from schedules.runs import run_of

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class Run:
    """As far as it is looked at."""

    id: str
    seconds_ago: float = 0

    @property
    def start_time(self) -> datetime:
        return NOW - timedelta(seconds=self.seconds_ago)


def step(workflow: str, batch: str | None = None) -> TraceStep:
    return TraceStep(step="executed", at=NOW, network=Network.RESPONSE, batch=batch, workflow=workflow)


def chosen(wanted: TraceStep, *runs: Run) -> str | None:
    given: Any = runs
    run = run_of(wanted, given)
    return run.id if run else None


@pytest.mark.parametrize(
    ("batch", "run"),
    [
        ("requests 1.7", "execute-requests-1.7"),
        ("requests 1.8", "execute-requests-1.8-12"),
        ("requests 1.12", "execute-requests-1.8-12"),
        ("requests 2.7", "execute-requests-2.7"),
        ("requests 1.13", None),
    ],
)
def test_an_execution_is_the_one_that_names_the_batch(batch: str, run: str | None) -> None:
    runs = [Run("execute-requests-1.7"), Run("execute-requests-1.8-12"), Run("execute-requests-2.7")]
    assert chosen(step("ExecuteRequests", batch), *runs) == run


def test_an_export_is_the_last_one_begun_before_or_by_clocks_that_differ_the_first_after() -> None:
    early, late, after = Run("early", 120), Run("late", 1), Run("after", -0.5)
    assert chosen(step("ExportResults"), early, late, after) == "late"
    assert chosen(step("ExportResults"), after) == "after"
    assert chosen(step("ExportResults")) is None
