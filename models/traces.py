"""The trace of a request through both networks: steps and times, never contents."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from models.foreign_text import Cleaned
from models.streams import Network


class TraceStep(BaseModel):
    """One event of a request. The clocks of the two networks may differ a little."""

    model_config = ConfigDict(extra="forbid")

    step: Cleaned = Field(description="Stable word: submitted, sealed, handed-out, pulled, executed, …", max_length=40)
    at: datetime | None = Field(description="By the clock of `network`; null if not recorded")
    network: Network
    batch: Cleaned | None = Field(
        None, description="Stream, epoch and number", max_length=60, examples=["requests 1.42"]
    )
    workflow: str | None = Field(None, max_length=40, description="Type of the workflow that did it")
    workflow_id: str | None = Field(None, max_length=300, description="Null if Temporal does not know it")
    run_id: str | None = Field(
        None, max_length=60, description="Run of that workflow; null if Temporal does not know it"
    )
    note: Cleaned | None = Field(None, max_length=300)


class Trace(BaseModel):
    """The events of a request so far, and what it waits for."""

    model_config = ConfigDict(extra="forbid")

    request_id: UUID
    status: Cleaned = Field(max_length=40)
    steps: list[TraceStep] = Field(description="In the order of the events", max_length=50)
    waits_for: Cleaned | None = Field(description="The next event; null if there is none", max_length=300)
