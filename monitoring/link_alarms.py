"""Which alarm a stream's silence calls for: none where nothing is to be sent, else what keeps it from flowing.

Pure functions on a state of `monitoring.measurement_store.stream_states`, so that whoever looks judges alike: the measurement, a
delivery that fails, and `airlock status` while no worker lives. *Nothing to send* is no alarm: heartbeats come.
"""

from collections.abc import Mapping
from typing import Any

from configuration.cadences import SCHEDULE_OF, Cadence
from models.streams import StreamName
from models.wording import counted

LATE_CADENCES = 2.5
"""Cadences after which what was expected and did not come is an alert."""
FAILING_CADENCES = 1.5
"""So long may attempts fail, in cadences. They begin a cadence after the last one that succeeded, at most: so the alarm
is raised within `LATE_CADENCES` of it."""
SURE_AFTER = 2
"""Refusals in a row that make an alarm at once: they do not pass by themselves."""
POLL_CADENCE = 60.0
"""Of the pulled stream, in seconds: a long poll and its way back."""

PATIENT = {
    "dead": "the request network does not answer: bring it, or what is between, back. {detail}",
    "throttled": "the request network asks to wait{until}: raise the limit there if this lasts. {detail}",
    "gap": "the receiver asks for earlier batches again and again: {detail}; see: airlock verify --stream {stream}",
}
"""What passes by itself in most cases: an alarm when it lasts."""
SURE = {
    "clock-skew": "the clocks differ{apart}, so signatures are refused: set both networks' clocks (NTP). {detail}",
    "unknown-key": "a key is not trusted, or no longer: see airlock keys. {detail}",
    "bad-signature": "signatures do not fit: is the link id the same on both sides, who changes bytes? {detail}",
    "refused": "the link is refused, and not by a request network of ours: is a proxy on the way? {detail}",
    "oversize": "a batch is refused as too large on its way: raise the limit there. {detail}",
    "unsupported-version": "the two sides speak different versions of the protocol: update one. {detail}",
    "malformed": "what the other side answers cannot be read: does a proxy answer in its place? {detail}",
}
"""What waits for somebody."""
WORDS = PATIENT | SURE


def cadence_of(stream: StreamName, cadences: Mapping[str, Cadence]) -> float:
    """Seconds in which something is to be heard on a stream. Cron may mean anything: a day is allowed for it."""
    return POLL_CADENCE if stream is StreamName.REQUESTS else cadences[SCHEDULE_OF[stream]].every or 86_400.0


def alarm_names(stream: StreamName) -> set[str]:
    """All that `judge_link` may raise for a stream."""
    return {f"link-{kind}:{stream}" for kind in WORDS} | {not_tried(stream), f"stream-refused:{stream}"}


def not_tried(stream: str) -> str:
    """The alarm of a stream that nobody attends to."""
    return f"not-tried:{stream}"


def judge_link(state: Mapping[str, Any], cadence: float, paused: bool = False) -> dict[str, str]:
    """The alarm that a stream of the response network calls for, as name → message; none while it flows or idles.

    ``cadence`` in seconds; ``paused``: an operator paused what delivers it, so that nothing is expected.
    """
    stream, link = state["stream"], state.get("link")
    waiting = state["pending_records"] + state["in_flight_records"] if state["direction"] == "out" else 0
    kept = f" Nothing is lost: {counted(waiting, 'record')} still to be delivered" if waiting else ""
    if state["stopped"]:
        return {}
    if link and link["failures"]:
        kind = link["kind"]
        if kind == "stopped":
            return {f"stream-refused:{stream}": f"{stream} is stopped on the other side: {link['detail']}"}
        lasts = link["failing_seconds"] > FAILING_CADENCES * cadence
        if lasts or (kind in SURE and link["failures"] >= SURE_AFTER):
            since = f"For {link['failing_seconds']:.0f} s now."
            return {f"link-{kind}:{stream}": f"{stream}: {_words(link, stream)}. {since}{kept}"}
        return {}
    silent = _least(state["last_contact_seconds"], link and link["tried_seconds"])
    if silent is not None and silent > LATE_CADENCES * cadence and not paused:
        runs = "the pull loop" if stream == StreamName.REQUESTS else f"the schedule {SCHEDULE_OF[StreamName(stream)]}"
        return {not_tried(stream): f"{stream} was not even tried for {silent:.0f} s: do a worker and {runs} run?{kept}"}
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
