"""The cost of the faults for callers, by the times of the ledger and of the faults."""

import statistics
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from chaos.faults import Done
from chaos.ledger import Ledger

SETTLED = 10.0
"""Seconds after a recovery from which latencies count as undisturbed."""


@dataclass(frozen=True)
class Answered:
    """One request with a result. Unix times, seconds."""

    submitted: float
    answered: float


@dataclass(frozen=True)
class Recovery:
    """Recovery from faults of one kind: the time from a fault's end to the first result of a request submitted after
    its beginning.
    """

    kind: str
    faults: int
    median: float | None
    longest: float | None
    never: int
    """Faults without such a result; the load may have ended."""


def answered(ledger: Ledger) -> list[Answered]:
    """Every accepted request with a result, in order of submission."""
    found = (
        Answered(accepted.sent.at, ledger.results[accepted.request_id].at)
        for accepted in ledger.accepted()
        if accepted.request_id in ledger.results
    )
    return sorted(found, key=lambda each: each.submitted)


def longest_stall(ledger: Ledger) -> float:
    """The longest time, in seconds, in which an accepted request was outstanding and no result came."""
    events = [(accepted.at, 1) for accepted in ledger.accepted()]
    events += [(read.at, -1) for read in ledger.results.values()]
    longest, since, outstanding = 0.0, 0.0, 0
    for at, change in sorted(events, key=lambda event: (event[0], -event[1])):
        if change > 0:
            since = at if outstanding == 0 else since
        else:
            longest, since = max(longest, at - since), at
        outstanding += change
    return longest


def recovered_at(done: Done, requests: Sequence[Answered]) -> float | None:
    """When the first result came for a request submitted after the fault began; the fault's end at the earliest."""
    first = bisect_left(requests, done.began, key=lambda each: each.submitted)
    times = [each.answered for each in requests[first:]]
    return max(done.ended, min(times)) if times else None


def recoveries(done: Sequence[Done], requests: Sequence[Answered]) -> list[Recovery]:
    """The recovery from each kind of fault, ordered by name."""
    by_kind: dict[str, list[float | None]] = defaultdict(list)
    for each in done:
        if not each.problem:
            at = recovered_at(each, requests)
            by_kind[each.fault.kind.value].append(None if at is None else at - each.ended)
    found = []
    for kind, times in sorted(by_kind.items()):
        known = [time for time in times if time is not None]
        median, longest = (statistics.median(known), max(known)) if known else (None, None)
        found.append(Recovery(kind, len(times), median, longest, len(times) - len(known)))
    return found


def calm_latencies(done: Sequence[Done], requests: Sequence[Answered]) -> list[float]:
    """Sorted latencies, in seconds from submission to result, of requests that no fault disturbed."""
    disturbed = [(each.began, (recovered_at(each, requests) or each.ended) + SETTLED) for each in done]
    return sorted(
        each.answered - each.submitted
        for each in requests
        if not any(each.submitted <= until and begin <= each.answered for begin, until in disturbed)
    )


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """A quantile of sorted numbers: an existing one; None if there are none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None
