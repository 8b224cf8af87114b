"""What a measurement means: which alerts it calls for. A pure function, so that every rule can be tested alone."""

from collections.abc import Mapping, Set
from typing import Any

from configuration.cadences import EXPORT_RESULTS, EXPORT_SETTINGS, SYSTEM_MONITORING, Cadence
from models.streams import StreamName

LATE_CADENCES = 2.5
"""Cadences after which what was expected and did not come is an alert."""
POLL_SILENCE_SECONDS = 150.0
"""Silence on the pulled stream that no long poll explains."""
DISK_FREE_BYTES = 1024**3
MEMORY_PERCENT = 95.0

_SCHEDULE_OF = {
    StreamName.SETTINGS: EXPORT_SETTINGS,
    StreamName.RESULTS: EXPORT_RESULTS,
    StreamName.HEALTH: SYSTEM_MONITORING,
}


def judge(
    body: Mapping[str, Any], earlier: Mapping[str, Any] | None, cadences: Mapping[str, Cadence]
) -> dict[str, str]:
    """The alerts that a measurement calls for, as name → message for an operator."""
    wanted: dict[str, str] = {}
    for state in body["streams"]:
        _judge_stream(state, cadences, wanted)
    moving = _moving(body, earlier or {})
    _judge_schedules(body.get("schedules", {}), (earlier or {}).get("schedules", {}), moving, wanted)
    if not body["redis"]["available"]:
        wanted["redis-away"] = "Redis does not answer: reads go to PostgreSQL and are slower until it is back"
    if not body.get("workers", {}).get("polling", 1):
        wanted["no-workers"] = "no response worker polls its task queue: start one with: airlock worker response"
    host = body["host"]
    if host["disk_free_bytes"] < DISK_FREE_BYTES:
        wanted["disk-low"] = f"{host['disk_free_bytes'] / 1024**2:.0f} MiB of disk are free: make room"
    if host["memory_percent"] > MEMORY_PERCENT:
        wanted["memory-low"] = f"{host['memory_percent']:.0f} % of the memory is in use"
    database = body["database"]
    if database["connections"] > 0.9 * database["max_connections"]:
        wanted["database-connections"] = (
            f"{database['connections']} of {database['max_connections']} database connections are in use"
        )
    return wanted


def _moving(body: Mapping[str, Any], earlier: Mapping[str, Any]) -> Set[str]:
    """Schedules whose stream went on since the last measurement: one long run of theirs is busy and not stuck."""
    before = {state["stream"]: state["delivered"] for state in earlier.get("streams", ())}
    return {
        schedule
        for state in body["streams"]
        if (schedule := _SCHEDULE_OF.get(StreamName(state["stream"])))
        and state["delivered"] > before.get(state["stream"], state["delivered"])
    }


def _judge_stream(state: Mapping[str, Any], cadences: Mapping[str, Cadence], wanted: dict[str, str]) -> None:
    stream = state["stream"]
    if state["stopped"]:
        wanted[f"stream-stopped:{stream}"] = f"{stream} is stopped until an operator decides: {state['stopped']}"
    if state["quarantined"]:
        wanted[f"quarantined:{stream}"] = f"{state['quarantined']} records of {stream} were set aside: airlock streams"
    if state["direction"] == "in":
        silent = state["last_contact_seconds"]
        if silent is not None and silent > POLL_SILENCE_SECONDS:
            wanted[f"link-silent:{stream}"] = f"nothing was heard on {stream} for {silent:.0f} s: is the link up?"
        return
    cadence = cadences[_SCHEDULE_OF[StreamName(stream)]]
    late = LATE_CADENCES * (cadence.every or 86_400.0)
    age, contact = state["oldest_age_seconds"], state["last_contact_seconds"]
    if age is not None and age > late:
        waiting = state["pending_records"] + state["in_flight_records"]
        wanted[f"stream-late:{stream}"] = f"{waiting} records of {stream} wait, the oldest for {age:.0f} s"
    elif contact is not None and contact > late:
        wanted[f"link-silent:{stream}"] = f"no receipt came for {stream} in {contact:.0f} s: is the link up?"


def _judge_schedules(
    now: Mapping[str, Any], before: Mapping[str, Any], moving: Set[str], wanted: dict[str, str]
) -> None:
    for name, schedule in now.items():
        if schedule is None:
            wanted[f"schedule-missing:{name}"] = (
                f"the schedule {name} does not exist: a response worker makes it at its start"
            )
            continue
        if schedule["paused"]:
            wanted[f"schedule-paused:{name}"] = f"{name} is paused: {schedule['note'] or 'no reason given'}"
        earlier = before.get(name) or {}
        skipped = schedule["skipped_overlap"] - earlier.get("skipped_overlap", schedule["skipped_overlap"])
        if skipped > 0 and schedule["actions"] == earlier.get("actions") and name not in moving:
            wanted[f"schedule-skipping:{name}"] = (
                f"{skipped} runs of {name} were skipped since the last measurement, and one goes on without delivering"
            )
        missed = schedule["missed_catch_up"] - earlier.get("missed_catch_up", schedule["missed_catch_up"])
        if missed > 0:
            wanted[f"schedule-missed:{name}"] = f"{missed} runs of {name} fell into an outage and were not made up for"
