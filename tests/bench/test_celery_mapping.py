"""The Celery build gets the same plan, and what it is spared is spared to its advantage alone."""

import pytest

from bench.celery.mapping import COUNTERPARTS, mapped
from chaos.plan import LINK, PROCESSES, FaultKind, make_plan

PLAN = make_plan(7, 10)
PROCESSES_OF_CELERY = {"postgres", "redis", "request-api", "response-api", "celery-worker", "beat"}


def test_every_target_of_a_plan_has_a_counterpart_and_a_reason() -> None:
    assert set(COUNTERPARTS) == {*PROCESSES, LINK}
    assert all(counterpart.why for counterpart in COUNTERPARTS.values())
    assert {each.name for each in COUNTERPARTS.values()} == PROCESSES_OF_CELERY | {LINK, None}


def test_faults_keep_their_time_kind_and_parameters() -> None:
    spared = [fault for fault in PLAN if fault.target != "request-worker"]
    assert len(spared) < len(PLAN), "this plan shows nothing"
    hit = mapped(PLAN, redis=True)
    assert [(f.at, f.kind, f.seconds, f.parameters) for f in hit] == [
        (f.at, f.kind, f.seconds, f.parameters) for f in spared
    ]
    assert [f.target for f in hit] == [COUNTERPARTS[f.target].name for f in spared]


def test_without_redis_nothing_touches_the_broker() -> None:
    assert any(fault.target == "redis" for fault in PLAN), "this plan shows nothing"
    hit = mapped(PLAN, redis=False)
    assert hit == [fault for fault in mapped(PLAN, redis=True) if fault.target != "redis"]


@pytest.mark.parametrize("redis", [True, False])
def test_a_plan_of_temporal_alone_never_hits_the_broker(redis: bool) -> None:
    plan = [fault for fault in PLAN if fault.target == "temporal"]
    assert plan, "this plan shows nothing"
    assert {fault.target for fault in mapped(plan, redis=redis)} == {"beat"}
    assert FaultKind.FLUSH not in {fault.kind for fault in mapped(plan, redis=redis)}
