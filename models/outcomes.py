"""What workflows and activities take and return: references, counts and ids, never data."""

from typing import Self

from pydantic import BaseModel, Field

from models.streams import StreamName

BRIEF = "brief"
"""Says in the memo of a workflow run that it does what is short within its own task, by a local activity."""

STANDS_BY = "stands_by"
"""Says in the memo of such a run that it stays after what it did, and stands by for more."""

BRIEF_SECONDS = 1.0
"""For how long a local activity begins with another batch."""


class Outcome(BaseModel):
    """What an activity did that may be begun in short and gone on with."""

    more: bool = Field(False, exclude_if=lambda more: not more)
    """Its time was over before everything was done."""

    def plus(self, other: Self) -> Self:
        """Both as one: the later, where it counts what is there, whoever did it."""
        return other


class DrainOutcome(Outcome):
    """What one delivery run did."""

    batches: int = 0
    records: int = 0
    payload_bytes: int = 0
    heartbeat: bool = False
    """Nothing had changed: a signed heartbeat went instead of a batch."""

    def plus(self, other: Self) -> Self:
        """Both deliveries as one."""
        return type(self)(
            batches=self.batches + other.batches,
            records=self.records + other.records,
            payload_bytes=self.payload_bytes + other.payload_bytes,
            heartbeat=not (self.batches or other.batches),
            more=other.more,
        )

    def __str__(self) -> str:
        if self.heartbeat:
            return "nothing new: heartbeat sent"
        return f"{self.batches} batches, {self.records} records, {self.payload_bytes} bytes"


class PullProgress(BaseModel):
    """What a pull loop has done since it began; outlives a continue-as-new."""

    batches: int = 0
    records: int = 0

    def __str__(self) -> str:
        return f"{self.batches} batches, {self.records} records pulled"


class ExecutionOutcome(Outcome):
    """What became of the requests of one batch."""

    records: int = 0
    by_status: dict[str, int] = Field(default_factory=dict)
    quarantined: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.by_status.items())) or "no requests"
        return counts + (f", {self.quarantined} quarantined" if self.quarantined else "")


class ApplyOutcome(Outcome):
    """What applying received batches did. A batch that a neighbour's run applied is not counted again."""

    batches: int = 0
    records: int = 0
    superseded: int = 0
    quarantined: int = 0
    groups_fulfilled: int = 0

    def plus(self, other: Self) -> Self:
        """Both as one."""
        return type(self)(
            batches=self.batches + other.batches,
            records=self.records + other.records,
            superseded=self.superseded + other.superseded,
            quarantined=self.quarantined + other.quarantined,
            groups_fulfilled=self.groups_fulfilled + other.groups_fulfilled,
            more=other.more,
        )

    def __str__(self) -> str:
        return (
            f"{self.batches} batches, {self.records} records applied, {self.superseded} superseded,"
            f" {self.quarantined} quarantined, {self.groups_fulfilled} groups fulfilled"
        )


FIRST_LOOK_SECONDS = 5.0
"""After its start, a group's workflow that has no callbacks to make looks for the first time what is outstanding."""


class GroupState(Outcome):
    """What a group still waits for, after what was overdue has been closed."""

    size: int
    outstanding: int
    next_deadline_in: float | None
    callbacks_due: int

    def __str__(self) -> str:
        return f"{self.size} requests: {self.outstanding} outstanding, {self.callbacks_due} callbacks due"


class CallbackOutcome(BaseModel):
    """What one round of callbacks did."""

    delivered: int = 0
    given_up: int = 0
    due: int = 0


class MonitoringOutcome(BaseModel):
    """What a measurement found: names of alerts."""

    raised: list[str] = Field(default_factory=list)
    cleared: list[str] = Field(default_factory=list)
    open: list[str] = Field(default_factory=list)

    def __str__(self) -> str:
        return f"{len(self.open)} alerts open ({', '.join(self.open) or 'none'}), {len(self.cleared)} cleared"


class MaintenanceOutcome(BaseModel):
    """What tending did."""

    cache_keys_dropped: int = 0
    batches_emptied: int = 0
    rows_deleted: dict[str, int] = Field(default_factory=dict)

    def __str__(self) -> str:
        rows = ", ".join(f"{count} {table}" for table, count in self.rows_deleted.items() if count) or "no rows"
        return f"{self.cache_keys_dropped} cache keys dropped, {self.batches_emptied} batches emptied, {rows} deleted"


class EpochOutcome(BaseModel):
    """What a new epoch began with; all but the numbers of batches are records."""

    stream: StreamName
    epoch: int
    previous_epoch: int
    previous_sequence: int
    resealed_batches: int = Field(0, description="Batches sealed in place of void ones, at a sender here")
    resealed: int = 0
    taken_back: int = Field(0, description="Results that only the request network still had")
    given_back: int = Field(0, description="Requests and cancellations that only the response network still had")
    lost: int = Field(0, description="Past retention, and given up by the operator")
