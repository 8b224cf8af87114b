"""What workflows and activities take and return: references, counts and ids, never data."""

from typing import Self

from pydantic import BaseModel, Field

from models.streams import StreamName
from models.wording import counted


def _volume(done: "DrainOutcome | PullProgress | ApplyOutcome") -> str:
    return f"{counted(done.batches, 'batch')}, {counted(done.records, 'record')}"


class DrainOutcome(BaseModel):
    """What one delivery run did."""

    batches: int = 0
    records: int = 0
    payload_bytes: int = 0
    heartbeat: bool = False
    """Nothing had changed: a signed heartbeat went instead of a batch."""
    unfinished: bool = False
    """The worker stopped, or the round was over, before the run was: another activity carries it on."""
    in_spite_of_pause: bool = False
    """Triggered by hand while the schedule was paused: what was ready then is delivered, and nothing after it."""

    def plus(self, other: Self) -> Self:
        """Both deliveries as one."""
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
    """What a pull loop has done since it began; outlives a continue-as-new."""

    batches: int = 0
    records: int = 0

    def __str__(self) -> str:
        return f"{_volume(self)} pulled"


class ExecutionOutcome(BaseModel):
    """What became of the requests of some batches."""

    records: int = 0
    executed: int = 0
    """Results stored so far, while the activity runs."""
    by_status: dict[str, int] = Field(default_factory=dict)
    quarantined: int = 0

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(self.by_status.items())) or "no requests"
        return counts + (f", {self.quarantined} quarantined" if self.quarantined else "")


class ApplyOutcome(BaseModel):
    """What applying received batches did. A batch that another run applied is not counted again."""

    batches: int = 0
    records: int = 0
    superseded: int = 0
    quarantined: int = 0
    unfinished: bool = False
    """The worker stopped, or the round was over, while the run attended: another activity carries it on."""

    def plus(self, other: Self) -> Self:
        """Both as one."""
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
    """What groups of requests still wait for, after what was overdue has been closed."""

    size: int
    outstanding: int
    next_deadline_in: float | None
    """Seconds until the earliest deadline of what is outstanding; None where nothing has one."""
    callbacks_wanted: int
    """Callbacks that are not made yet: of finished requests and of outstanding ones."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self.outstanding and not self.callbacks_wanted

    def __str__(self) -> str:
        return (
            f"{counted(self.size, 'request')}: {self.outstanding} outstanding,"
            f" {counted(self.callbacks_wanted, 'callback')} to make"
        )


class CallbackOutcome(BaseModel):
    """What a run that makes callbacks did."""

    delivered: int = 0
    given_up: int = 0
    failed_attempts: int = 0
    unfinished: bool = False
    """The worker stopped, or the round was over: another activity carries it on."""

    def __str__(self) -> str:
        return (
            f"{counted(self.delivered, 'callback')} delivered, {self.given_up} given up,"
            f" {counted(self.failed_attempts, 'failed attempt')}"
        )


class MonitoringOutcome(BaseModel):
    """The key figures of a measurement, which the table ``measurements`` has in full; alerts by their names."""

    backlog: dict[str, int] = Field(description="Records that wait, by stream")
    oldest_seconds: float | None = Field(description="Age of the oldest record that waits to be delivered")
    workers: int | None = Field(description="Workers that poll the task queue; null where Temporal does not say")
    cpu_percent: float
    memory_percent: float
    disk_free_bytes: int
    database_ms: float = Field(description="Until PostgreSQL answered")
    database_bytes: int
    redis_ms: float | None = Field(description="Until Redis answered; null where it does not")
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
    """What tending did."""

    cache_keys_dropped: int = 0
    batches_emptied: int = 0
    rows_deleted: dict[str, int] = Field(default_factory=dict)

    def __str__(self) -> str:
        rows = ", ".join(f"{count} {table}" for table, count in self.rows_deleted.items() if count) or "no rows"
        keys, batches = counted(self.cache_keys_dropped, "cache key"), counted(self.batches_emptied, "batch")
        return f"{keys} dropped, {batches} emptied, {rows} deleted"


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
