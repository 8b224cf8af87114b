"""One request's way through both networks: places and times, never contents."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.streams import Network


class TraceStep(BaseModel):
    """Something that happened to the request. The two networks' clocks may differ a little."""

    model_config = ConfigDict(extra="forbid")

    step: str = Field(description="Stable word: submitted, sealed, handed-out, pulled, executed, …", max_length=40)
    at: datetime | None = Field(description="By the clock of `network`; null where that is not kept")
    network: Network
    batch: str | None = Field(None, description="Stream, epoch and number", max_length=60, examples=["requests 1.42"])
    workflow: str | None = Field(None, max_length=40, description="Type of the workflow that did it")
    workflow_id: str | None = Field(None, max_length=300, description="Null where Temporal does not say")
    run_id: str | None = Field(None, max_length=60, description="Of that workflow; null where Temporal does not say")
    note: str | None = Field(None, max_length=300)


class Trace(BaseModel):
    """Where a request has been, and what it waits for now."""

    model_config = ConfigDict(extra="forbid")

    request_id: UUID
    status: str
    steps: list[TraceStep] = Field(description="In the order of the way", max_length=50)
    waits_for: str | None = Field(description="What must happen next; null when nothing must", max_length=300)
