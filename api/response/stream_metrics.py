"""Prometheus gauges for streams and alerts, read from the database at each scrape."""

import math
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Gauge

_STREAM = {
    "sequence": ("airlock_stream_sequence", "Newest batch sealed or received"),
    "records": ("airlock_stream_records", "Records in all batches"),
    "delivered": ("airlock_stream_delivered", "Newest batch confirmed by a receipt"),
    "applied": ("airlock_stream_applied", "All batches up to this one are applied"),
    "pending_records": ("airlock_stream_pending_records", "Records waiting to be sealed or applied"),
    "in_flight_records": ("airlock_stream_in_flight_records", "Records sealed and not acknowledged"),
    "oldest_age_seconds": ("airlock_stream_oldest_age_seconds", "Age of the oldest record that is not delivered"),
    "last_contact_seconds": ("airlock_stream_last_contact_seconds", "Seconds since the last message of the other side"),
    "quarantined": ("airlock_stream_quarantined_records", "Quarantined records"),
}


class StreamMetrics:
    """The gauges of one app."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("stream", "direction")
        self.gauges = {key: Gauge(name, help, labels, registry=registry) for key, (name, help) in _STREAM.items()}
        self.stopped = Gauge(
            "airlock_stream_stopped", "1 if the stream waits for an operator", labels, registry=registry
        )
        self.alerts = Gauge("airlock_alerts_open", "Open alerts", registry=registry)


def refresh(metrics: StreamMetrics, states: Sequence[dict[str, Any]], alerts: int) -> None:
    """Set every gauge. An unknown age is NaN."""
    for state in states:
        labels = (state["stream"], state["direction"])
        for key, gauge in metrics.gauges.items():
            gauge.labels(*labels).set(math.nan if state[key] is None else state[key])
        metrics.stopped.labels(*labels).set(state["stopped"] is not None)
    metrics.alerts.set(alerts)
