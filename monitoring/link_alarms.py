"""The alarm of a stream whose link does not work. A stream with nothing to send raises none: its heartbeats come.

Pure functions of a state from `monitoring.measurement_store`. A measurement, a failed delivery and `airlock status` use
the same rules.
"""

from collections.abc import Mapping
from typing import Any

from configuration.cadences import SCHEDULE_OF, Cadence
from models.streams import StreamName
from models.wording import counted

LATE_CADENCES = 2.5
"""An alarm is raised when nothing was heard for this many cadences."""
FAILING_CADENCES = 1.5
"""An alarm is raised when attempts fail for this many cadences. Attempts begin at most one cadence after the last
success, so the alarm comes within `LATE_CADENCES` of it."""
SURE_AFTER = 2
"""This many refusals in a row raise an alarm at once: they do not pass by themselves."""
POLL_CADENCE = 60.0
"""Seconds for the pulled stream: a long poll and its answer."""

PATIENT = {
    "dead": "the request network does not answer: start it, or repair the network between. {detail}",
    "throttled": "the request network asks to wait{until}: raise the limit there if this lasts. {detail}",
    "gap": "the receiver asks for earlier batches again and again: {detail}; see: airlock verify --stream {stream}",
}
"""Troubles that often pass by themselves: an alarm only if they last."""
SURE = {
    "clock-skew": "the clocks differ{apart}, so signatures are refused: set both networks' clocks (NTP). {detail}",
    "unknown-key": "a key is unknown or retired: see airlock keys list. {detail}",
    "bad-signature": "signatures are wrong: compare the link ids of both sides; does a proxy change bytes? {detail}",
    "refused": "something other than the request network refuses the link: look at the proxies on the way. {detail}",
    "oversize": "a batch is refused as too large on its way: raise the limit there. {detail}",
    "unsupported-version": "the two sides speak different versions of the protocol: update one. {detail}",
    "malformed": "an answer cannot be read: does a proxy answer instead of the request network? {detail}",
}
"""Troubles that wait for an operator."""
WORDS = PATIENT | SURE


def cadence_of(stream: StreamName, cadences: Mapping[str, Cadence]) -> float:
    """Seconds in which a stream must be heard; a day for a cron expression, whose ticks are not known here."""
    return POLL_CADENCE if stream is StreamName.REQUESTS else cadences[SCHEDULE_OF[stream]].every or 86_400.0


def alarm_names(stream: StreamName) -> set[str]:
    """All alarms that `judge_link` may raise for a stream."""
    return {f"link-{kind}:{stream}" for kind in WORDS} | {not_tried(stream), f"stream-refused:{stream}"}


def not_tried(stream: str) -> str:
    """The alarm of a stream that nothing tries to deliver or pull."""
    return f"not-tried:{stream}"


def judge_link(state: Mapping[str, Any], cadence: float, paused: bool = False) -> dict[str, str]:
    """The alarm of a stream in the response network, as name → message; none while the link works.

    ``cadence`` is in seconds. ``paused``: an operator paused its schedule, so nothing is expected.
    """
    stream, link = state["stream"], state.get("link")
    waiting = state["pending_records"] + state["in_flight_records"] if state["direction"] == "out" else 0
    kept = f" Nothing is lost: {counted(waiting, 'record')} still to be delivered" if waiting else ""
    if state["stopped"]:
        return {}
    if link and link["failures"]:
        kind = link["kind"]
        if kind == "stopped":
            return {f"stream-refused:{stream}": f"the other side has stopped {stream}: {link['detail']}"}
        lasts = link["failing_seconds"] > FAILING_CADENCES * cadence
        if lasts or (kind in SURE and link["failures"] >= SURE_AFTER):
            since = f"For {link['failing_seconds']:.0f} s now."
            return {f"link-{kind}:{stream}": f"{stream}: {_words(link, stream)}. {since}{kept}"}
        return {}
    silent = _least(state["last_contact_seconds"], link and link["tried_seconds"])
    if silent is not None and silent > LATE_CADENCES * cadence and not paused:
        runs = "the pull loop" if stream == StreamName.REQUESTS else f"the schedule {SCHEDULE_OF[StreamName(stream)]}"
        return {not_tried(stream): f"{stream} was not tried for {silent:.0f} s: do a worker and {runs} run?{kept}"}
    return {}


def _words(link: Mapping[str, Any], stream: str) -> str:
    until, ahead = link["wait_until"], link["clock_ahead"]
    return WORDS[link["kind"]].format(
        stream=stream,
        detail=link["detail"] or "no reason given",
        until=f" until {until}" if until else "",
        apart="" if ahead is None else f" by {abs(ahead):.0f} s, ours is {'behind' if ahead > 0 else 'ahead'}",
    )


def _least(*ages: float | None) -> float | None:
    return min((age for age in ages if age is not None), default=None)
