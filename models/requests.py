"""Requests, their types and their results, as callers and the link see them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, HttpUrl

TYPE_NAME = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$"
TypeName = Annotated[str, Field(pattern=TYPE_NAME, max_length=64)]
Moment = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]
"""A time in the range that PostgreSQL, Python and JSON all support, in any time zone."""


class RequestStatus(StrEnum):
    """The status of a request. The last four are final."""

    QUEUED = "queued"
    SENT = "sent"
    EXECUTING = "executing"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return self not in (RequestStatus.QUEUED, RequestStatus.SENT, RequestStatus.EXECUTING)


class RequestSubmission(BaseModel):
    """A request as a caller submits it."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"type": "airport", "params": {"iata": "IST"}}]}
    )

    type: TypeName = Field(description="Name of an active request type")
    params: dict[str, Any] = Field(default_factory=dict, description="Checked against the type's JSON Schema")
    name: Annotated[str, Field(max_length=200, json_schema_extra={"pattern": "^[^\\x00]*$"})] | None = Field(
        None, description="The caller's own label"
    )
    priority: int = Field(5, ge=1, le=10, description="10 is executed first within its group")
    deadline: float | None = Field(
        None, gt=0, le=31_536_000, description="Seconds from submission after which the request expires"
    )
    callback_url: HttpUrl | None = Field(None, description="Receives the result in a signed POST")


class RequestRecord(BaseModel):
    """A record of the ``requests`` stream: a request, or the cancellation of one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["request", "cancellation"] = "request"
    request_id: UUID
    user_id: UUID
    type: str = Field("", pattern=f"^$|{TYPE_NAME}", max_length=64)
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = Field(5, ge=1, le=10)
    submitted_at: Moment
    deadline_at: Moment | None = None


class Limits(BaseModel):
    """The limits of one execution."""

    model_config = ConfigDict(extra="forbid")

    rows: int = Field(1000, ge=1, le=100_000, description="Maximum of returned rows; further rows are only counted")
    rows_param: str | None = Field(
        None, max_length=64, description="The parameter with which the caller may ask for fewer rows"
    )
    timeout: float = Field(10.0, gt=0, le=600, description="Seconds until the execution is stopped")
    bytes: int = Field(
        4 * 1024 * 1024,
        ge=1024,
        le=7 * 1024 * 1024,
        description="Maximum of bytes in returned rows; further rows are cut off",
    )
    reuse: int = Field(
        0, ge=0, le=86_400, description="Seconds for which an answer may be reused for the same parameters"
    )


class PublicRequestType(BaseModel):
    """A request type without its executor, as the request network knows it."""

    name: TypeName
    version: int = Field(ge=1)
    description: str = Field("", max_length=2000)
    params_schema: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object"}, description="JSON Schema (2020-12) of the parameters"
    )
    limits: Limits = Field(default_factory=Limits)


class ExecutionError(BaseModel):
    """The reason why a request has no data."""

    reason: str = Field(description="Stable word: timeout, unknown-type, invalid-params, executor-failed, …")
    message: str


class ResultBody(BaseModel):
    """A result as it crosses the link. Callers read it with ``source`` added."""

    request_id: UUID
    status: RequestStatus
    data: list[Any]
    returned: int
    total: int | None = Field(description="Rows that the request matched; null if unknown")
    truncated: bool = Field(description="Whether rows were cut off by a limit")
    error: ExecutionError | None
    executed_at: datetime | None
    duration_ms: float | None
