"""What workflows and activities return: counts and ids, never data."""

from typing import Self

from pydantic import BaseModel, Field

from models.streams import StreamName
from models.wording import counted


def _volume(done: "DrainOutcome | PullProgress | ApplyOutcome") -> str:
    return f"{counted(done.batches, 'batch')}, {counted(done.records, 'record')}"


class DrainOutcome(BaseModel):
    """The outcome of a delivery run."""

    batches: int = 0
    records: int = 0
    payload_bytes: int = 0
    heartbeat: bool = False
    """Nothing had changed, so a signed heartbeat was sent instead of a batch."""
    unfinished: bool = False
    """The worker stopped or the activity's time was over before the run ended; another activity continues it."""
    in_spite_of_pause: bool = False
    """The run was triggered by hand while the schedule was paused: it delivered only what was ready at its start."""

    def plus(self, other: Self) -> Self:
        """The sum of both outcomes."""
        return type(self)(
            batches=self.batches + other.batches,
            records=self.records + other.records,
            payload_bytes=self.payload_bytes + other.payload_bytes,
            heartbeat=(self.heartbeat or other.heartbeat) and not (self.batches or other.batches),
            unfinished=other.unfinished,
            in_spite_of_pause=self.in_spite_of_pause,
        )

    def __str__(self) -> str:
        if self.heartbeat and not self.batches:
            return "nothing new: heartbeat sent"
        return f"{_volume(self)}, {counted(self.payload_bytes, 'byte')}"


class PullProgress(BaseModel):
    """Totals of a pull loop since its start, kept across continue-as-new."""

    batches: int = 0
    records: int = 0

    def __str__(self) -> str:
        return f"{_volume(self)} pulled"


class ExecutionOutcome(BaseModel):
    """The outcome of executing the requests of some batches."""

    records: int = 0
    executed: int = 0
    """Results stored so far, while the activity runs."""
    by_status: dict[str, int] = Field(default_factory=dict)
    quarantined: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.by_status.items())) or "no requests"
        return counts + (f", {self.quarantined} quarantined" if self.quarantined else "")


class ApplyOutcome(BaseModel):
    """The outcome of applying received batches. A batch that another run applied is not counted."""

    batches: int = 0
    records: int = 0
    superseded: int = 0
    quarantined: int = 0
    unfinished: bool = False
    """The worker stopped or the activity's time was over; another activity continues the run."""

    def plus(self, other: Self) -> Self:
        """The sum of both outcomes."""
        return type(self)(
            batches=self.batches + other.batches,
            records=self.records + other.records,
            superseded=self.superseded + other.superseded,
            quarantined=self.quarantined + other.quarantined,
            unfinished=other.unfinished,
        )

    def __str__(self) -> str:
        return f"{_volume(self)} applied, {self.superseded} superseded, {self.quarantined} quarantined"


class GroupState(BaseModel):
    """What is open in groups of requests, after overdue requests were closed."""

    size: int
    outstanding: int
    next_deadline_in: float | None
    """Seconds until the earliest deadline of an outstanding request; None if there is no deadline."""
    callbacks_wanted: int
    """Callbacks not made yet, of finished and of outstanding requests."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is open."""
        return not self.outstanding and not self.callbacks_wanted

    def __str__(self) -> str:
        return (
            f"{counted(self.size, 'request')}: {self.outstanding} outstanding,"
            f" {counted(self.callbacks_wanted, 'callback')} to make"
        )


class CallbackOutcome(BaseModel):
    """The outcome of a run that makes callbacks."""

    delivered: int = 0
    given_up: int = 0
    failed_attempts: int = 0
    unfinished: bool = False
    """The worker stopped or the activity's time was over; another activity continues the run."""

    def __str__(self) -> str:
        return (
            f"{counted(self.delivered, 'callback')} delivered, {self.given_up} given up,"
            f" {counted(self.failed_attempts, 'failed attempt')}"
        )


class MonitoringOutcome(BaseModel):
    """The key figures of a measurement, and the names of alerts. The table ``measurements`` has all figures."""

    backlog: dict[str, int] = Field(description="Waiting records by stream")
    oldest_seconds: float | None = Field(description="Age of the oldest record not yet delivered")
    workers: int | None = Field(description="Workers that poll the task queue; null if Temporal does not answer")
    cpu_percent: float
    memory_percent: float
    disk_free_bytes: int
    database_ms: float = Field(description="Response time of PostgreSQL")
    database_bytes: int
    redis_ms: float | None = Field(description="Response time of Redis; null if it does not answer")
    raised: list[str] = Field(default_factory=list)
    cleared: list[str] = Field(default_factory=list)
    open: list[str] = Field(default_factory=list)

    def __str__(self) -> str:
        waiting = ", ".join(f"{count} {stream}" for stream, count in self.backlog.items() if count)
        redis = "Redis away" if self.redis_ms is None else f"Redis {self.redis_ms:.1f} ms"
        return (
            f"alerts: {', '.join(self.open) or 'none'}; waiting: {waiting or 'nothing'};"
            f" {'workers unknown' if self.workers is None else counted(self.workers, 'worker')},"
            f" CPU {self.cpu_percent:.0f} %, memory {self.memory_percent:.0f} %,"
            f" {self.disk_free_bytes / 1024**3:.1f} GiB of disk free, PostgreSQL {self.database_ms:.1f} ms, {redis}"
        )


class MaintenanceOutcome(BaseModel):
    """The outcome of maintenance."""

    cache_keys_dropped: int = 0
    batches_emptied: int = 0
    rows_deleted: dict[str, int] = Field(default_factory=dict)

    def __str__(self) -> str:
        rows = ", ".join(f"{count} {table}" for table, count in self.rows_deleted.items() if count) or "no rows"
        keys, batches = counted(self.cache_keys_dropped, "cache key"), counted(self.batches_emptied, "batch")
        return f"{keys} dropped, {batches} emptied, {rows} deleted"


class EpochOutcome(BaseModel):
    """The outcome of beginning a new epoch. Counts are records unless they say batches."""

    stream: StreamName
    epoch: int
    previous_epoch: int
    previous_sequence: int
    resealed_batches: int = Field(
        0, description="Batches sealed again in place of void ones, if this side sends the stream"
    )
    resealed: int = 0
    taken_back: int = Field(0, description="Results recovered from the request network")
    given_back: int = Field(0, description="Requests and cancellations recovered from the response network")
    lost: int = Field(0, description="Lost: past retention, and given up by the operator")
