"""The distance between turns, by a clock that the tests set."""

import pytest

from exchange.transfer import rate_limiter
from exchange.transfer.rate_limiter import RateLimiter


class Clock:
    """Stands for `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rate_limiter, "time", clock)
    return clock


def taken_at(clock: Clock, turns: RateLimiter, count: int) -> list[float]:
    """When so many turns were taken, each as soon as may be."""
    times = []
    for _ in range(count):
        clock.now += max(0.0, turns.left())
        turns.take()
        times.append(clock.now - 1000.0)
    return times


def test_two_may_come_at_once_and_all_others_keep_their_distance(clock: Clock) -> None:
    turns = RateLimiter(2.0)
    assert taken_at(clock, turns, 5) == pytest.approx([0, 0, 2, 4, 6])
    clock.now += 3.0  # a rest: the turn for which it is time, and not two
    assert taken_at(clock, turns, 3) == pytest.approx([9, 10, 12])
    clock.now += 100.0
    assert taken_at(clock, turns, 3) == pytest.approx([112, 112, 114])


def test_what_rests_for_the_distance_never_waits(clock: Clock) -> None:
    turns = RateLimiter(2.0)
    for _ in range(10):
        assert turns.left() <= 0
        turns.take()
        clock.now += 2.0


def test_turns_that_were_taken_early_cost_no_more_than_one_distance(clock: Clock) -> None:
    turns = RateLimiter(2.0)
    for _ in range(100):
        turns.take()
        assert turns.left() <= 2.0


def test_a_longer_distance_is_kept_once(clock: Clock) -> None:
    turns = RateLimiter(2.0)
    turns.take(10.0)
    assert turns.left() == pytest.approx(8.0)
    clock.now += 8.0
    turns.take()
    assert turns.left() == pytest.approx(2.0)
