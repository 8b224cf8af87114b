"""When a rate counts as sustained, which one is tried next, and what idling may not be mistaken for."""

from dataclasses import replace

import pytest

from bench.idle import Idle, away_from_minutes, needed
from bench.load.order import Outcome
from bench.sustained import RATES, behind, following

STEADY = Outcome(
    begun=600,
    good=600,
    problems={},
    unfinished=0,
    counted=600,
    rate=100.0,
    latency_ms={},
    outstanding=(40, 50, 60, 50, 40, 50, 60, 50),
    late_ms=5.0,
    cpu_seconds=1.0,
)


def test_a_steady_load_is_sustained() -> None:
    assert behind(STEADY, 100) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rate": 97.0}, "97.0 a second were answered"),
        ({"outstanding": (40, 50, 60, 70, 80, 90, 110, 140)}, "the backlog grew from 65 to 125"),
        ({"late_ms": 1500.0}, "the generator began a request 1,500 ms too late"),
        ({"problems": {"status 503": 1}}, "status 503 (1)"),
        ({"unfinished": 3}, "no answer at all (3)"),
        ({"gave_up": True}, "after some 6 s: more than 5 s of requests were outstanding"),
        (
            {"gave_up": True, "problems": {"status 503": 1}},
            "after some 6 s: status 503 (1)",
        ),
    ],
)
def test_a_load_that_falls_behind_or_fails_is_not(change: dict[str, object], reason: str) -> None:
    outcome = replace(STEADY, **change)  # type: ignore[arg-type]
    assert behind(outcome, 100)[0].startswith(reason)


@pytest.mark.parametrize("limit", [0, 1, 7, len(RATES) - 1, len(RATES)])
@pytest.mark.parametrize("first", [0, 5, len(RATES) - 1])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_search_ends_at_the_highest_rate_that_is_sustained(limit: int, first: int, stride: int) -> None:
    low, high, at, tries = -1, len(RATES), first, 0
    while high - low > 1:
        tries += 1
        assert low < at < high
        low, high = (at, high) if at < limit else (low, at)
        at = following(low, high, stride)
    assert low == limit - 1
    assert tries <= len(RATES)


def test_schedules_need_a_workflow_at_each_of_their_times_and_one_for_health() -> None:
    assert needed(3590.0, 3595.0) == 0
    assert needed(3590.0, 3605.0) == 5  # all four, and the import of health
    assert needed(3610.0, 3670.0) == 1
    assert needed(3610.0, 7210.0) == 60 + 30 + 12 + 1 + 12


def test_workflows_beyond_the_schedules_own_are_seen() -> None:
    idle = Idle(0.0, 0.0, {}, {"ExportSettings": 2, "FulfillRequests": 3}, needed=2, seconds=120.0)
    assert idle.beyond == 1.5


@pytest.mark.parametrize(("now", "wait"), [(120.0, 5.0), (124.0, 1.0), (130.0, 0.0), (176.0, 9.0), (170.0, 0.0)])
def test_the_time_begins_away_from_full_minutes(now: float, wait: float) -> None:
    assert away_from_minutes(now) == wait
