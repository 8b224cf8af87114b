"""The state of both networks for callers, and metrics for operators."""

from datetime import datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from api.bearer import needs_key
from api.problems import problem_responses
from api.request.callers import App, CallerOf, OperatorOf
from api.request.link_health import is_recent, silences
from fulfilment.result_store import find_snapshot
from models.streams import Network, StreamName
from monitoring.measurement_store import open_alerts, stream_states

router = APIRouter(tags=["health"])


class OwnAlert(BaseModel):
    """Something in the request network that wants an operator's attention."""

    name: str = Field(examples=["workflow-stuck:apply-results-1.7"])
    raised_at: datetime
    message: str | None = Field(description="What happened and what to do; for operators, null for others")


class Health(BaseModel):
    """The state of both networks."""

    alerts: list[OwnAlert] = Field(description="What is wrong in the request network itself")

    response_network: dict[str, Any] | None = Field(
        description="The newest health report of the response network; null before the first. Its status is unknown"
        " when it is too old"
    )
    measured_at: datetime | None = Field(description="Time of that report")
    settings: str | None = Field(description="Number of the current settings snapshot: epoch.sequence")
    streams: list[dict[str, Any]] = Field(description="Each stream as this network sees it")
    link: list[str] = Field(
        description="Problems of the link as this network sees it: silent streams and, for operators, refused calls"
    )


@router.get(
    "/v1/health",
    summary="Read the state of both networks",
    dependencies=[needs_key],
    responses=problem_responses(401, 503),
)
async def get_health(services: App, caller: CallerOf) -> Health:
    """The newest health report of the response network, and the streams as this network sees them."""
    catalog = await services.catalog.get()
    async with services.engine.begin() as connection:
        snapshot = await find_snapshot(connection, StreamName.HEALTH)
        states = await stream_states(connection, Network.REQUEST)
        alerts = await open_alerts(connection)
    is_operator = caller.role == "operator"
    said = orjson.loads(snapshot.records.splitlines()[0]) if snapshot is not None and snapshot.records else None
    if snapshot is not None and said is not None and not is_recent(snapshot.sealed_at):
        said["status"] = "unknown"
    return Health(
        alerts=[
            OwnAlert(name=each.name, raised_at=each.raised_at, message=each.message if is_operator else None)
            for each in alerts
        ],
        response_network=said,
        measured_at=snapshot.sealed_at if snapshot is not None else None,
        settings=f"{catalog.epoch}.{catalog.sequence}" if catalog.sequence else None,
        streams=states,
        link=silences(states) + (services.refusals.recent() if is_operator else []),
    )


@router.get(
    "/metrics",
    summary="Metrics in Prometheus's text format",
    dependencies=[needs_key],
    response_class=Response,
    responses=problem_responses(401, 403),
)
async def get_metrics(request: Request, _operator: OperatorOf) -> Response:
    """Requests by route and status, silence of the streams, refused calls. Needs an operator's API key."""
    async with request.app.state.services.engine.begin() as connection:
        states = await stream_states(connection, Network.REQUEST)
    request.app.state.link_metrics.refresh(states, request.app.state.services.refusals)
    response: Response = request.app.state.metrics.response()
    return response
