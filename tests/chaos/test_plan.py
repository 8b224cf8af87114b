import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise

import pytest

from chaos.plan import PROCESSES, FaultKind, make_plan
from configuration.home import CLONE

SEEDS = range(60)


def test_the_same_seed_gives_the_same_plan_and_another_seed_another_one() -> None:
    assert make_plan(7, 10) == make_plan(7, 10)
    assert len({json.dumps([fault.as_json() for fault in make_plan(seed, 10)]) for seed in SEEDS}) == len(SEEDS)


def test_the_same_seed_gives_the_same_plan_in_another_process() -> None:
    program = (
        "import json; from chaos.plan import make_plan; print(json.dumps([f.as_json() for f in make_plan(7, 10)]))"
    )
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONPATH": str(CLONE), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]
    assert printed[0] == printed[1]
    assert json.loads(printed[0]) == [fault.as_json() for fault in make_plan(7, 10)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_plan_of_ten_minutes_holds_every_kind_and_kills_and_stops_every_process(seed: int) -> None:
    plan = make_plan(seed, 10)
    assert {fault.kind for fault in plan} == set(FaultKind)
    for kind in (FaultKind.KILL, FaultKind.STOP):
        assert {fault.target for fault in plan if fault.kind is kind} == set(PROCESSES)
    for kind in (FaultKind.CORRUPT, FaultKind.TRUNCATE, FaultKind.DUPLICATE):
        directions = {fault.parameters["direction"] for fault in plan if fault.kind is kind}
        assert directions == {"to-server", "to-client"}
    assert {(fault.target, fault.parameters["signal"]) for fault in plan if fault.kind is FaultKind.RESTART} == {
        ("postgres", "SIGINT"),
        ("postgres", "SIGQUIT"),
        ("temporal", "SIGTERM"),
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_the_end_of_a_run_is_quiet_and_the_faults_come_in_order(seed: int) -> None:
    plan = make_plan(seed, 10)
    assert max(fault.until for fault in plan) <= 10 * 60 - 30
    assert [fault.at for fault in plan] == sorted(fault.at for fault in plan)
    assert plan[0].at > 0


def test_some_faults_overlap_and_most_leave_time_to_recover() -> None:
    gaps = [after.at - before.until for seed in SEEDS for before, after in pairwise(make_plan(seed, 10))]
    assert 0.05 < sum(gap < 0 for gap in gaps) / len(gaps) < 0.4
    assert sum(gap >= 5 for gap in gaps) / len(gaps) > 0.5


def test_a_short_plan_prefers_different_kinds() -> None:
    for seed in SEEDS:
        counted = Counter(fault.kind for fault in make_plan(seed, 1.5))
        assert max(counted.values()) == 1


def test_kinds_that_are_not_wanted_do_not_come() -> None:
    plan = make_plan(1, 10, [FaultKind.KILL, FaultKind.CUT])
    assert {fault.kind for fault in plan} == {FaultKind.KILL, FaultKind.CUT}


def test_a_plan_without_kinds_or_without_room_says_so() -> None:
    with pytest.raises(ValueError, match="at least one kind"):
        make_plan(1, 10, [])
    with pytest.raises(ValueError, match="no room"):
        make_plan(1, 0.01, [FaultKind.SLOW])
