"""Counts answers and their times."""

from array import array
from collections import Counter
from collections.abc import Sequence

from bench.load.order import Outcome

MAX_KINDS = 10
"""Distinct problems that are counted separately."""


class Tally:
    """Times of one clock, in seconds; answers count between ``begin`` and ``end``."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin, self._end = begin, end
        self._latencies = array("d")
        self._problems: Counter[str] = Counter()
        self._outstanding: list[int] = []
        self._good = self._counted = 0
        self.begun = self.ended = 0
        self.late = 0.0
        self.gave_up = False

    def record_end(self, began: float, now: float, problem: str) -> None:
        """Record the end of a journey that began, or was due, at ``began``."""
        self.ended += 1
        if problem:
            self._problems[problem if problem in self._problems or len(self._problems) < MAX_KINDS else "others"] += 1
            return
        self._good += 1
        if self._begin <= now < self._end:
            self._counted += 1
        if self._begin <= began < self._end:
            self._latencies.append(now - began)

    def is_hopeless(self, most: int) -> bool:
        """Whether there was a problem, or more than ``most`` are outstanding."""
        return bool(self._problems) or self.begun - self.ended > most

    def record_outstanding(self) -> None:
        """Call this at each full second that counts."""
        self._outstanding.append(self.begun - self.ended)

    def outcome(self, cpu_seconds: float) -> Outcome:
        """The outcome of everything recorded."""
        latencies = sorted(self._latencies)
        return Outcome(
            begun=self.begun,
            good=self._good,
            problems=dict(self._problems),
            unfinished=self.begun - self.ended,
            counted=self._counted,
            rate=self._counted / (self._end - self._begin),
            latency_ms={
                name: round(quantile(latencies, share) * 1000, 3)
                for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))
                if latencies
            },
            outstanding=tuple(self._outstanding),
            late_ms=round(self.late * 1000, 3),
            cpu_seconds=round(cpu_seconds, 3),
            gave_up=self.gave_up,
        )


def quantile(ordered: Sequence[float], share: float) -> float:
    """A quantile of sorted numbers: an existing one, never below the share."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
