from pathlib import Path

import pytest

from chaos.faults import Done
from chaos.measuring import Answered, answered, calm_latencies, longest_stall, quantile, recovered_at, recoveries
from chaos.plan import Fault, FaultKind
from tests.chaos.ledgers import Written, airport


def fault(began: float, ended: float, kind: FaultKind = FaultKind.STOP, problem: str = "") -> Done:
    return Done(Fault(0, kind, "redis"), began, ended, problem)


def ledger_of(path: Path, *times: tuple[float, float, float | None]) -> Written:
    """Requests, each with the times at which it was submitted, accepted and answered."""
    written = Written(path)
    for number, (submitted, accepted, result) in enumerate(times):
        written.intend(f"key {number}", airport(), at=submitted)
        written.accept(f"key {number}", f"id {number}", at=accepted)
        if result is not None:
            written.answer(f"id {number}", airport(), at=result)
    return written


def test_a_stall_is_time_with_something_outstanding_and_nothing_coming(tmp_path: Path) -> None:
    # 10 s pass between the first result and the next request, but nothing is outstanding then.
    ledger = ledger_of(tmp_path / "a", (0, 1, 2), (12, 13, 16), (12, 13, 21)).read()
    assert longest_stall(ledger) == 5
    assert [each.answered for each in answered(ledger)] == [2, 16, 21]


def test_a_request_without_a_result_does_not_end_a_stall(tmp_path: Path) -> None:
    ledger = ledger_of(tmp_path / "a", (0, 1, None), (0, 4, 9)).read()
    assert longest_stall(ledger) == 8


def test_nothing_accepted_is_no_stall(tmp_path: Path) -> None:
    assert longest_stall(ledger_of(tmp_path / "a").read()) == 0


def test_recovery_counts_only_requests_submitted_after_the_fault_began() -> None:
    requests = [Answered(5, 14), Answered(11, 18), Answered(12, 17)]
    assert recovered_at(fault(10, 13), requests) == 17
    assert recovered_at(fault(10, 20), requests) == 20, "results came while it lasted: it kept nothing back"
    assert recovered_at(fault(15, 20), requests) is None


def test_recoveries_are_given_by_kind_without_faults_that_were_not_done() -> None:
    requests = [Answered(float(at), at + 0.5) for at in range(0, 100, 10)]
    done = [fault(9, 9), fault(18, 19), fault(99, 99), fault(30, 30, problem="not there"), fault(41, 45, FaultKind.CUT)]
    cut, stop = recoveries(done, requests)
    assert (cut.kind, cut.faults, cut.median, cut.never) == ("link-cut", 1, 5.5, 0)
    assert (stop.kind, stop.faults, stop.median, stop.longest, stop.never) == ("stop", 3, 1.5, 1.5, 1)


def test_latency_is_that_of_requests_that_no_fault_touched() -> None:
    requests = [Answered(1, 3), Answered(9, 11), Answered(12, 12.5), Answered(15, 15.2), Answered(40, 41)]
    assert calm_latencies([fault(10, 11)], requests) == [1, 2]


@pytest.mark.parametrize(("share", "wanted"), [(0.0, 1), (0.5, 3), (0.99, 4), (1.0, 4)])
def test_a_quantile_is_one_of_the_numbers(share: float, wanted: float) -> None:
    assert quantile([1, 2, 3, 4], share) == wanted
    assert quantile([], share) is None
