"""The state of the link as the request network sees it: silent streams and refused calls."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

from exchange.errors import LinkError
from models.streams import StreamName

LATE_CADENCES = 2.5
"""A stream is reported as silent after this many cadences."""
CADENCES = {StreamName.SETTINGS: 60.0, StreamName.RESULTS: 120.0, StreamName.HEALTH: 300.0}
"""The default cadences of the response network in seconds. Its actual settings are not known here."""
REMEMBERED_SECONDS = 300.0


def silences(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """The streams without a batch or heartbeat for too long, as sentences."""
    return [
        f"{state['stream']}: the response network is silent for {state['last_contact_seconds']:.0f} s"
        for state in states
        if state["direction"] == "in"
        and state["last_contact_seconds"] is not None
        and state["last_contact_seconds"] > LATE_CADENCES * CADENCES[StreamName(state["stream"])]
    ]


def is_recent(sealed_at: datetime) -> bool:
    """Whether a health report of this time says something about now."""
    return datetime.now(UTC) - sealed_at <= timedelta(seconds=LATE_CADENCES * CADENCES[StreamName.HEALTH])


class Refusals:
    """The number of link calls with a refused signature, by kind of error, since this process started."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._last: dict[str, float] = {}

    def record(self, error: LinkError) -> None:
        """Count one refusal. Its message is not kept, since a stranger may have written it."""
        self.counts[error.kind] += 1
        self._last[error.kind] = time.monotonic()

    def recent(self) -> list[str]:
        """The kinds refused in the last `REMEMBERED_SECONDS`, as sentences for an operator."""
        now = time.monotonic()
        return [
            f"calls were refused: {kind}, {self.counts[kind]} in all, the last {now - moment:.0f} s ago"
            for kind, moment in sorted(self._last.items())
            if now - moment < REMEMBERED_SECONDS
        ]


class LinkMetrics:
    """Prometheus gauges for the same, set at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._silence = Gauge(
            "airlock_link_silence_seconds", "Seconds since the last message on a stream", ("stream",), registry=registry
        )
        self._refused = Gauge(
            "airlock_link_refused_calls", "Calls refused because of their signature", ("kind",), registry=registry
        )

    def refresh(self, states: Sequence[Mapping[str, Any]], refusals: Refusals) -> None:
        """Set the gauges. An unknown age is NaN."""
        for state in states:
            silent = state["last_contact_seconds"]
            self._silence.labels(state["stream"]).set(math.nan if silent is None else silent)
        for kind, count in refusals.counts.items():
            self._refused.labels(kind).set(count)
