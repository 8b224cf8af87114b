"""Which measurement calls for which alert, rule by rule."""

from typing import Any

import pytest

from configuration.cadences import DEFAULT_CADENCES, Cadence
from monitoring.alerting import judge


def stream(name: str = "results", direction: str = "out", **changes: Any) -> dict[str, Any]:
    state = {
        "stream": name,
        "direction": direction,
        "pending_records": 0,
        "in_flight_records": 0,
        "delivered": 0,
        "oldest_age_seconds": None,
        "last_contact_seconds": 1.0,
        "quarantined": 0,
        "stopped": None,
    }
    return state | changes


def schedule(**changes: Any) -> dict[str, Any]:
    return {"paused": False, "note": "", "actions": 1, "skipped_overlap": 0, "missed_catch_up": 0} | changes


def body(**changes: Any) -> dict[str, Any]:
    """A measurement with nothing wrong."""
    measured = {
        "measured_at": "2026-01-01T00:00:00+00:00",
        "streams": [stream(name) for name in ("settings", "results", "health")] + [stream("requests", "in")],
        "schedules": {name: schedule() for name in DEFAULT_CADENCES},
        "workers": {"polling": 1},
        "redis": {"available": True},
        "host": {"disk_free_bytes": 10 * 1024**3, "memory_percent": 50.0},
        "database": {"connections": 5, "max_connections": 100},
    }
    return measured | changes


def alerts(measured: dict[str, Any], earlier: dict[str, Any] | None = None) -> dict[str, str]:
    return judge(measured, earlier, DEFAULT_CADENCES)


def test_where_nothing_is_wrong_there_is_no_alert() -> None:
    assert alerts(body()) == {}
    assert alerts(body(), body()) == {}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"redis": {"available": False}}, "redis-away"),
        ({"workers": {"polling": 0}}, "no-workers"),
        ({"host": {"disk_free_bytes": 1024**3 - 1, "memory_percent": 50.0}}, "disk-low"),
        ({"host": {"disk_free_bytes": 10 * 1024**3, "memory_percent": 95.1}}, "memory-low"),
        ({"database": {"connections": 91, "max_connections": 100}}, "database-connections"),
        ({"streams": [stream(stopped="forked at 3")]}, "stream-stopped:results"),
        ({"streams": [stream(quarantined=1)]}, "quarantined:results"),
        ({"streams": [stream("requests", "in", last_contact_seconds=150.1)]}, "not-tried:requests"),
        ({"streams": [stream(oldest_age_seconds=301.0, pending_records=2)]}, "stream-late:results"),
        ({"streams": [stream("settings", oldest_age_seconds=151.0)]}, "stream-late:settings"),
        ({"streams": [stream("health", oldest_age_seconds=751.0)]}, "stream-late:health"),
        ({"streams": [stream(last_contact_seconds=301.0)]}, "not-tried:results"),
        ({"schedules": {"export-results": None}}, "schedule-missing:export-results"),
        ({"schedules": {"export-results": schedule(changed=True)}}, "schedule-changed:export-results"),
        ({"schedules": {"export-results": schedule(paused=True, note="moving")}}, "schedule-paused:export-results"),
    ],
)
def test_each_of_these_alone_raises_its_alert_and_no_other(changes: dict[str, Any], name: str) -> None:
    raised = alerts(body(**changes))
    assert list(raised) == [name]
    assert raised[name]


@pytest.mark.parametrize(
    "changes",
    [
        {"host": {"disk_free_bytes": 1024**3, "memory_percent": 95.0}},
        {"database": {"connections": 90, "max_connections": 100}},
        {"streams": [stream("requests", "in", last_contact_seconds=150.0)]},
        {"streams": [stream("requests", "in", last_contact_seconds=None)]},
        {"streams": [stream(oldest_age_seconds=300.0, last_contact_seconds=300.0)]},
        {"streams": [stream(last_contact_seconds=None)]},
    ],
)
def test_at_its_bound_nothing_is_raised(changes: dict[str, Any]) -> None:
    assert alerts(body(**changes)) == {}


def test_lateness_is_told_with_the_number_of_records_and_not_twice_as_silence() -> None:
    late = stream(oldest_age_seconds=400.0, pending_records=2, in_flight_records=3)
    assert "5 records" in alerts(body(streams=[late]))["stream-late:results"]
    silent = late | {"last_contact_seconds": 400.0}
    assert list(alerts(body(streams=[silent]))) == ["not-tried:results"]
    assert "5 records still to be delivered" in alerts(body(streams=[silent]))["not-tried:results"]


def test_what_counts_as_late_follows_the_cadence() -> None:
    cadences = DEFAULT_CADENCES | {"export-results": Cadence(every=10)}
    late = body(streams=[stream(oldest_age_seconds=26.0)])
    assert list(judge(late, None, cadences)) == ["stream-late:results"]
    assert judge(late, None, DEFAULT_CADENCES) == {}


@pytest.mark.parametrize(
    ("counter", "name"), [("skipped_overlap", "schedule-skipping"), ("missed_catch_up", "schedule-missed")]
)
def test_skipped_and_missed_runs_are_told_once_when_their_counter_grew(counter: str, name: str) -> None:
    before = body(schedules={"export-results": schedule(**{counter: 3})})
    now = body(schedules={"export-results": schedule(**{counter: 5})})
    raised = alerts(now, before)
    assert list(raised) == [f"{name}:export-results"]
    assert raised[f"{name}:export-results"].startswith("2 runs")
    assert alerts(now, now) == {}
    assert alerts(now, None) == {}, "without an earlier measurement nothing is known to have grown"
    fresh = body(schedules={"export-results": schedule()})
    assert alerts(fresh, before) == {}, "a schedule that was made anew counts from nothing"


def test_a_worker_that_has_just_begun_is_not_blamed_for_the_time_before() -> None:
    """A machine that was off over night: nothing was tried, runs were missed, and all is on its way now."""
    night = body(
        measured_at="2026-01-01T08:00:00+00:00",
        streams=[stream(last_contact_seconds=28800.0), stream("health", pending_records=1, oldest_age_seconds=28800.0)],
        schedules={"export-results": schedule(missed_catch_up=240)},
    )
    before = body(schedules={"export-results": schedule()})
    assert judge(night, before, DEFAULT_CADENCES, awake_seconds=11) == {}
    assert sorted(judge(night, before, DEFAULT_CADENCES, awake_seconds=28801)) == [
        "not-tried:results",
        "schedule-missed:export-results",
        "stream-late:health",
    ]


def test_runs_skipped_for_one_that_goes_on_delivering_or_has_ended_are_no_alert() -> None:
    before = body(schedules={"export-results": schedule()}, streams=[stream(delivered=3)])
    skipped = {"export-results": schedule(skipped_overlap=2)}
    assert list(alerts(body(schedules=skipped, streams=[stream(delivered=3)]), before))
    assert alerts(body(schedules=skipped, streams=[stream(delivered=4)]), before) == {}
    ended = {"export-results": schedule(skipped_overlap=2, actions=2)}
    assert alerts(body(schedules=ended, streams=[stream(delivered=3)]), before) == {}
