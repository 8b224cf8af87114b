"""The state of the response network, and its metrics."""

from typing import Any

from fastapi import Request, Response
from pydantic import BaseModel, Field

from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from api.response.stream_metrics import refresh
from api.response.stream_routes import AlertView
from models.errors import ConfigurationError, Unavailable
from models.streams import Network
from monitoring.health import HealthStatus, health_now
from monitoring.measurement_store import open_alerts, stream_states
from schedules.views import ScheduleView, list_schedules

router = operator_router("", "health")


class Health(BaseModel):
    """The newest measurement and all open alerts."""

    status: HealthStatus = Field(
        description="Unknown before the first measurement, when the newest is older than 2.5 cadences, and while"
        " Temporal does not answer"
    )
    alerts: list[AlertView]
    measurement: dict[str, Any] | None = Field(description="Host, database, cache, workers, schedules and streams")


@router.get("/v1/health", summary="Read the state of this network", operation_id="get_health")
async def get_health(services: App, _operator: OperatorOf) -> Health:
    """The newest measurement of `SystemMonitoring`, and all open alerts. Paused schedules are those of this moment."""
    schedules: list[ScheduleView] | None
    try:
        schedules = await list_schedules(services.temporal)
    except (Unavailable, ConfigurationError):
        schedules = None
    async with services.engine.connect() as connection:
        found = await health_now(connection, services.settings.cadences, schedules)
    return Health(
        status=found.status,
        alerts=[AlertView.model_validate(alert, from_attributes=True) for alert in found.alerts],
        measurement=found.measurement and dict(found.measurement),
    )


@router.get(
    "/metrics",
    summary="Metrics in Prometheus's text format",
    operation_id="get_metrics",
    response_class=Response,
    responses={200: {"description": "Metrics", "content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(request: Request, services: App, _operator: OperatorOf) -> Response:
    """Requests by route and status, positions and backlog of the streams, open alerts."""
    async with services.engine.begin() as connection:
        states = await stream_states(connection, Network.RESPONSE)
        alerts = await open_alerts(connection)
    refresh(request.app.state.stream_metrics, states, len(alerts))
    response: Response = request.app.state.metrics.response()
    return response
