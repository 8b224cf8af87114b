"""How the link looks from the request network, which opens no connection: who is silent, who was refused."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from exchange.errors import LinkError
from models.streams import StreamName

LATE_CADENCES = 2.5
"""Cadences after which silence is told."""
CADENCES = {StreamName.SETTINGS: 60.0, StreamName.RESULTS: 120.0, StreamName.HEALTH: 300.0}
"""In which the response network is heard of by default, in seconds. What it is set to there is not known here."""
UNPULLED_SECONDS = 150.0
"""After which records of a partition that are not pulled are told of: two long polls and a half."""
REMEMBERED_SECONDS = 300.0


def silences(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """Streams on which nothing was heard for too long, neither a batch nor a heartbeat, and partitions that nobody
    pulls.
    """
    return [
        f"{state['stream']}: the response network is silent for {state['last_contact_seconds']:.0f} s"
        for state in states
        if state["direction"] == "in"
        and state["last_contact_seconds"] is not None
        and state["last_contact_seconds"] > LATE_CADENCES * CADENCES[StreamName(state["stream"]).kind]
    ] + [
        f"{state['stream']}: nobody has pulled {state['in_flight_records']} records for"
        f" {state['oldest_age_seconds']:.0f} s: is AIRLOCK_RESPONSE_PARTITIONS {StreamName(state['stream']).number + 1}"
        " at least?"
        for state in states
        if state["direction"] == "out"
        and StreamName(state["stream"]).number
        and (state["oldest_age_seconds"] or 0) > UNPULLED_SECONDS
    ]


class Refusals:
    """Calls over the link whose signature was refused, by kind, since this process began."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def record(self, error: LinkError) -> None:
        """One more. What it says is not kept: a stranger may have written it."""
        self.counts[error.kind] += 1
        self._last[error.kind] = time.monotonic()

    def told(self) -> list[str]:
        """Those of the last `REMEMBERED_SECONDS`, for an operator."""
        now = time.monotonic()
        return [
            f"calls were refused: {kind}, {self.counts[kind]} in all, the last {now - moment:.0f} s ago"
            for kind, moment in sorted(self._last.items())
            if now - moment < REMEMBERED_SECONDS
        ]


class LinkMetrics:
    """The same for Prometheus, set when it is scraped."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._silence = Gauge(
            "airlock_link_silence_seconds", "Since a stream was last heard of", ("stream",), registry=registry
        )
        self._refused = Gauge(
            "airlock_link_refused_calls", "Calls refused for their signature", ("kind",), registry=registry
        )

    def refresh(self, states: Sequence[Mapping[str, Any]], refusals: Refusals) -> None:
        """An age that is not known is NaN."""
        for state in states:
            silent = state["last_contact_seconds"]
            self._silence.labels(state["stream"]).set(math.nan if silent is None else silent)
        for kind, count in refusals.counts.items():
            self._refused.labels(kind).set(count)
