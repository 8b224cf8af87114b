"""The alerts that a measurement raises. Pure functions, so that tests can check each rule alone."""

import math
from collections.abc import Mapping, Set
from datetime import datetime
from typing import Any

from configuration.cadences import SCHEDULE_OF, Cadence
from models.streams import StreamName
from models.wording import counted
from monitoring.link_alarms import LATE_CADENCES, cadence_of, judge_link, not_tried

DISK_FREE_BYTES = 1024**3
MEMORY_PERCENT = 95.0


def judge(
    body: Mapping[str, Any],
    earlier: Mapping[str, Any] | None,
    cadences: Mapping[str, Cadence],
    awake_seconds: float = math.inf,
) -> dict[str, str]:
    """The alerts that a measurement raises, as name → message for an operator.

    ``awake_seconds``: time since the measuring worker started. Work that was missed before that raises no alert.
    """
    wanted: dict[str, str] = {}
    paused = {name for name, schedule in body.get("schedules", {}).items() if schedule and schedule["paused"]}
    for state in body["streams"]:
        wanted |= judge_stream(state, cadences, paused, awake_seconds)
    moving = _moving(body, earlier or {})
    was_awake = earlier is not None and awake_seconds > _seconds_between(earlier, body)
    _judge_schedules(body.get("schedules", {}), (earlier or {}).get("schedules", {}), moving, was_awake, wanted)
    if not body["redis"]["available"]:
        wanted["redis-away"] = "Redis does not answer: reads go to PostgreSQL and are slower until it is back"
    if not body.get("workers", {}).get("polling", 1):
        wanted["no-workers"] = "no response worker polls its task queue: start one with: airlock worker response"
    host = body["host"]
    if host["disk_free_bytes"] < DISK_FREE_BYTES:
        wanted["disk-low"] = f"only {host['disk_free_bytes'] / 1024**2:.0f} MiB of disk are free: make room"
    if host["memory_percent"] > MEMORY_PERCENT:
        wanted["memory-low"] = (
            f"{host['memory_percent']:.0f} % of the memory is in use: stop other programs, or add memory"
        )
    database = body["database"]
    if database["connections"] > 0.9 * database["max_connections"]:
        wanted["database-connections"] = (
            f"{database['connections']} of {database['max_connections']} database connections are in use:"
            " raise max_connections, or lower AIRLOCK_N_DATABASE_CONNECTIONS"
        )
    return wanted


def _seconds_between(earlier: Mapping[str, Any], body: Mapping[str, Any]) -> float:
    then, now = (datetime.fromisoformat(each["measured_at"]) for each in (earlier, body))
    return (now - then).total_seconds()


def _moving(body: Mapping[str, Any], earlier: Mapping[str, Any]) -> Set[str]:
    """Schedules whose streams delivered since the last measurement: a long run of one is busy, not stuck."""
    before = {state["stream"]: state["delivered"] for state in earlier.get("streams", ())}
    return {
        schedule
        for state in body["streams"]
        if (schedule := SCHEDULE_OF.get(StreamName(state["stream"])))
        and state["delivered"] > before.get(state["stream"], state["delivered"])
    }


def judge_stream(
    state: Mapping[str, Any], cadences: Mapping[str, Cadence], paused: Set[str], awake_seconds: float = math.inf
) -> dict[str, str]:
    """The alerts that one stream raises. ``paused``: schedules that an operator paused."""
    name = StreamName(state["stream"])
    wanted: dict[str, str] = {}
    if state["stopped"]:
        todo = f"find out why, then: airlock stream new-epoch {name}"
        wanted[f"stream-stopped:{name}"] = f"{name} is stopped: {state['stopped']}; {todo}"
    if state["quarantined"]:
        wanted[f"quarantined:{name}"] = (
            f"{counted(state['quarantined'], 'record')} of {name} set aside: airlock quarantine list"
        )
    cadence = cadence_of(name, cadences)
    link = judge_link(state, cadence, SCHEDULE_OF.get(name) in paused)
    age = state["oldest_age_seconds"]
    if awake_seconds <= LATE_CADENCES * cadence:  # the worker has just started: give it time to deliver
        link.pop(not_tried(name), None)
        age = None
    if not link and state["direction"] == "out" and age is not None and age > LATE_CADENCES * cadence:
        waiting = state["pending_records"] + state["in_flight_records"]
        wanted[f"stream-late:{name}"] = (
            f"{name}: {counted(waiting, 'record')} not delivered, the oldest for {age:.0f} s: look at the run that"
            " delivers them in the Temporal Web UI; it may need more workers"
        )
    return wanted | link


def schedule_alert(name: str, schedule: Mapping[str, Any] | None) -> dict[str, str]:
    """The alert of a schedule that is paused or does not exist (None), as name → message."""
    if schedule is None:
        return {f"schedule-missing:{name}": f"the schedule {name} does not exist: a running response worker makes it"}
    if schedule["paused"]:
        reason = schedule["note"] or "no reason given"
        todo = f"to go on: airlock schedules resume {name}"
        return {f"schedule-paused:{name}": f"{name} is paused: {reason}; {todo}"}
    return {}


def _judge_schedules(
    now: Mapping[str, Any], before: Mapping[str, Any], moving: Set[str], was_awake: bool, wanted: dict[str, str]
) -> None:
    for name, schedule in now.items():
        wanted |= schedule_alert(name, schedule)
        if schedule is None:
            continue
        if schedule.get("changed"):
            wanted[f"schedule-changed:{name}"] = (
                f"{name} in Temporal is not as configured: find out who changed it, then start a response worker again,"
                " which sets it right"
            )
        earlier = before.get(name) or {}
        skipped = schedule["skipped_overlap"] - earlier.get("skipped_overlap", schedule["skipped_overlap"])
        if skipped > 0 and schedule["actions"] == earlier.get("actions") and name not in moving:
            wanted[f"schedule-skipping:{name}"] = (
                f"{counted(skipped, 'run')} of {name} skipped since the last measurement,"
                " and one goes on without delivering: look at it in the Temporal Web UI"
            )
        missed = schedule["missed_catch_up"] - earlier.get("missed_catch_up", schedule["missed_catch_up"])
        if missed > 0 and was_awake:
            missed_runs = counted(missed, "run")
            wanted[f"schedule-missed:{name}"] = (
                f"{missed_runs} of {name} missed in an outage: nothing to do, the next run does their work"
            )
