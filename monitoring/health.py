"""Whether this network is well: from its newest measurement, its open alerts and its schedules as they are now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy.ext.asyncio import AsyncConnection

from configuration.cadences import Cadence
from models.streams import StreamName
from monitoring.alerting import schedule_alert
from monitoring.link_alarms import LATE_CADENCES, cadence_of
from monitoring.measurement_store import OpenAlert, open_alerts, recent_measurements
from schedules.views import ScheduleView

HealthStatus = Literal["ok", "degraded", "unknown"]


@dataclass(frozen=True)
class HealthNow:
    """The state of the response network. ``why_unknown``: a sentence, if the measurement is too old."""

    status: HealthStatus
    alerts: list[OpenAlert]
    measurement: Mapping[str, Any] | None
    why_unknown: str | None


async def health_now(
    connection: AsyncConnection, cadences: Mapping[str, Cadence], schedules: Sequence[ScheduleView] | None
) -> HealthNow:
    """From the newest measurement, the open alerts and the schedules of this moment; None if Temporal is away."""
    newest = await recent_measurements(connection, 1)
    measurement = newest[0] if newest else None
    alerts = alerts_now(await open_alerts(connection), measurement, schedules)
    why = too_old(measurement, cadences)
    return HealthNow(status_of(alerts, measurement, schedules is not None and why is None), alerts, measurement, why)


def too_old(measurement: Mapping[str, Any] | None, cadences: Mapping[str, Cadence]) -> str | None:
    """Why the newest measurement says nothing about now, as a sentence; None if it does, or if there is none yet."""
    if measurement is None:
        return None
    age = (datetime.now(UTC) - datetime.fromisoformat(measurement["measured_at"])).total_seconds()
    if age <= LATE_CADENCES * cadence_of(StreamName.HEALTH, cadences):
        return None
    return (
        f"the newest measurement is {age:.0f} s old, so alerts may be missing: look at the schedule system-monitoring,"
        " and whether a response worker runs"
    )


def alerts_now(
    stored: Sequence[OpenAlert], measurement: Mapping[str, Any] | None, schedules: Sequence[ScheduleView] | None
) -> list[OpenAlert]:
    """The stored alerts, but those of schedules as they are now and not as they were when they were measured.

    ``schedules``: None if Temporal does not answer; then the stored alerts are all that is known.
    """
    if schedules is None:
        return list(stored)
    seen: dict[str, ScheduleView | None] = {view.id: view for view in schedules}
    # Before the first measurement no worker may have made the schedules.
    for name in (measurement or {}).get("schedules", {}):
        seen.setdefault(name, None)
    wanted: dict[str, str] = {}
    for name, view in seen.items():
        wanted |= schedule_alert(name, None if view is None else {"paused": view.paused, "note": view.note})
    kinds = ("schedule-paused:", "schedule-missing:")
    known = {alert.name for alert in stored}
    kept = [alert for alert in stored if alert.name in wanted or not alert.name.startswith(kinds)]
    now = datetime.now(UTC)
    return kept + [OpenAlert(name, message, now) for name, message in wanted.items() if name not in known]


def status_of(alerts: Sequence[OpenAlert], measurement: Mapping[str, Any] | None, is_known: bool) -> HealthStatus:
    """``is_known``: the measurement is new enough, and Temporal answers."""
    if not is_known:
        return "unknown"
    return "degraded" if alerts else "ok" if measurement else "unknown"
