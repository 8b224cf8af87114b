"""Quarantine: received requests that could not be applied, for an operator to retry or drop."""

from datetime import datetime
from typing import Annotated

from fastapi import Body, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from api.pagination import DEFAULT_LIMIT, PageLimit
from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from exchange.recovery.quarantine import Quarantine
from exchange.transfer.quarantine_store import list_quarantined
from models.streams import Network, StreamName

router = operator_router("/v1/quarantine", "quarantine")

Epoch = Annotated[int, Path(ge=1, le=2**31 - 1)]
Record = Annotated[int, Path(ge=1, le=2**63 - 1)]


class QuarantinedRecordView(BaseModel):
    """A quarantined record. Its body is shown only by the command line."""

    model_config = ConfigDict(from_attributes=True)

    stream: StreamName
    epoch: int
    record: int
    sequence: int = Field(description="The batch that contained it")
    reason: str = Field(description="Why the last attempt did not apply it")
    size: int = Field(description="Size in bytes")
    quarantined_at: datetime
    retries: int
    retried_at: datetime | None
    dropped_at: datetime | None
    dropped_by: str | None
    drop_reason: str | None


class QuarantineList(BaseModel):
    """Quarantined records, by epoch and number."""

    records: list[QuarantinedRecordView]


class Outcome(BaseModel):
    """The outcome of a retry."""

    model_config = ConfigDict(from_attributes=True)

    stream: StreamName
    epoch: int
    record: int
    refused: str | None = Field(description="Why it stays in quarantine; null if it was applied")


class Decision(BaseModel):
    """Why a record is dropped. The reason is kept with it."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(min_length=1, max_length=1000, pattern=r"\S", examples=["a test record"])


@router.get("", summary="List quarantined records", operation_id="list_quarantine", responses=problem_responses(422))
async def list_some(
    services: App,
    _operator: OperatorOf,
    dropped: Annotated[bool, Query(description="List dropped records instead of waiting ones")] = False,
    after_epoch: Annotated[int, Query(ge=0, le=2**31 - 1, description="List records after this one")] = 0,
    after_record: Annotated[int, Query(ge=0, le=2**63 - 1)] = 0,
    limit: PageLimit = DEFAULT_LIMIT,
) -> QuarantineList:
    """The received records that could not be applied, with the reason."""
    after = (StreamName.REQUESTS, after_epoch, after_record)
    async with services.engine.connect() as connection:
        found = await list_quarantined(connection, [StreamName.REQUESTS], dropped, after, limit)
    return QuarantineList(records=[QuarantinedRecordView.model_validate(item) for item in found])


@router.post(
    "/{epoch}/{record}/retry",
    summary="Retry a record",
    operation_id="retry_quarantined",
    responses=problem_responses(404, 409, 422),
)
async def retry(services: App, _operator: OperatorOf, epoch: Epoch, record: Record) -> Outcome:
    """Apply the record again. If it is applied, its request is executed soon."""
    (outcome,) = await Quarantine(services.engine, Network.RESPONSE).retry(StreamName.REQUESTS, epoch, record)
    return Outcome.model_validate(outcome)


@router.post(
    "/{epoch}/{record}/drop",
    summary="Drop a record",
    operation_id="drop_quarantined",
    responses=problem_responses(404, 409, 422),
)
async def drop(
    services: App,
    operator: OperatorOf,
    epoch: Epoch,
    record: Record,
    decision: Annotated[Decision, Body()],
) -> QuarantinedRecordView:
    """The record is kept, with the operator and the reason. The request that it names, if any, fails."""
    quarantine = Quarantine(services.engine, Network.RESPONSE)
    dropped = await quarantine.drop(StreamName.REQUESTS, epoch, record, operator.name, decision.reason)
    return QuarantinedRecordView.model_validate(dropped)
