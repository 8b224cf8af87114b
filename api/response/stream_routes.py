"""Streams: their positions, and the bytes that would cross."""

from datetime import datetime
from typing import Any, Literal

from fastapi import Response
from pydantic import BaseModel, Field

from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from api.response.preview import MEDIA_TYPE, preview
from models.streams import Network, StreamName
from monitoring.measurement_store import open_alerts, stream_states

router = operator_router("/v1/streams", "streams")


class AlertView(BaseModel):
    """A condition that needs attention."""

    name: str
    message: str
    raised_at: datetime


class StreamView(BaseModel):
    """A stream as this network sees it. Numbers count from 1 within the epoch."""

    stream: StreamName
    direction: Literal["out", "in"]
    epoch: int
    sequence: int = Field(description="Newest batch sealed, or received")
    records: int = Field(description="Records in all batches up to it")
    delivered: int = Field(description="Newest batch confirmed by a receipt")
    applied: int = Field(description="All batches up to this one are applied")
    pending_records: int = Field(description="Records not sealed yet, or not applied yet")
    in_flight_batches: int
    in_flight_records: int
    oldest_age_seconds: float | None = Field(description="Age of the oldest record that is not delivered")
    last_contact_seconds: float | None = Field(description="Seconds since the last message of the other side")
    quarantined: int = Field(description="Quarantined records")
    link: dict[str, Any] | None = Field(
        None, description="The outcome of the last link attempts; null before the first"
    )
    stopped: str | None = Field(description="Why the stream waits for an operator; null if it does not")


class StreamsList(BaseModel):
    """All streams, and all open alerts."""

    streams: list[StreamView]
    alerts: list[AlertView]


@router.get("", summary="List streams", operation_id="list_streams")
async def list_all(services: App, _operator: OperatorOf) -> StreamsList:
    """Positions and backlog of each stream as seen here, with all open alerts."""
    async with services.engine.begin() as connection:
        states = await stream_states(connection, Network.RESPONSE)
        alerts = await open_alerts(connection)
    return StreamsList(
        streams=[StreamView.model_validate(state) for state in states],
        alerts=[AlertView.model_validate(alert, from_attributes=True) for alert in alerts],
    )


@router.get(
    "/{stream}/preview",
    summary="Preview what would cross",
    operation_id="preview_stream",
    response_class=Response,
    responses={
        200: {
            "description": "The records of the next batch, one per line",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **problem_responses(404, 422),
    },
)
async def preview_stream(services: App, _operator: OperatorOf, stream: StreamName) -> Response:
    """The exact bytes of the next batch before compression. Nothing is sealed."""
    async with services.engine.connect() as connection:
        return Response(await preview(connection, stream), media_type=MEDIA_TYPE)
