"""What one side says of a stream when both are compared: heads, digests over ranges, and what differs. No contents."""

from enum import StrEnum
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from exchange.wire.manifest import Number, Sha256Hex
from models.streams import Network, StreamName

BATCHES_PER_DIGEST = 5000
"""Batches that one digest covers at most; where it differs, halves of it are asked for."""
BATCHES_PER_AUDIT = 200
RECORDS_PER_AUDIT = 50_000
SECONDS_PER_AUDIT = 5.0
FINDINGS_PER_AUDIT = 500
"""An audit ends after the batch with which one of these is reached, so that its answer is bounded and comes in time."""


class Kind(StrEnum):
    """How something differs."""

    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"


class Finding(BaseModel):
    """One thing that differs, and where. Names ids and numbers, never contents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Network
    stream: StreamName
    table: Literal["epochs", "sealed_batches", "received_batches", "requests", "cancellations", "results", "snapshots"]
    kind: Kind
    epoch: int = 1
    sequence: int
    record: int | None = None
    request_id: UUID | None = None
    detail: str = Field("", max_length=500)

    @property
    def is_row(self) -> bool:
        """Whether it is a row that differs, rather than a batch or an epoch."""
        return self.table not in ("epochs", "sealed_batches", "received_batches")


class EpochSpan(BaseModel):
    """One epoch as one side has it: after which batch of which earlier epoch it began, and how far it goes here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    previous_epoch: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    previous_sequence: Number = 0
    through: Number = Field(description="Newest batch of it that this side has")


class StreamHead(BaseModel):
    """Where a stream ends on one side. ``hash`` is that of batch ``sequence``, all zeros before the first."""

    model_config = ConfigDict(extra="forbid")

    network: Network
    stream: StreamName
    epoch: int = Field(ge=1)
    sequence: Number
    record: Number
    hash: Sha256Hex
    applied: Number = Field(description="Received side: batches applied; sending side: what receipts say of that")
    pending: Number = Field(0, description="Sending side: records that are not sealed yet")
    quarantined: Number = 0
    stopped: str | None = None
    epochs: list[EpochSpan] = Field(min_length=1, max_length=10_000, description="Oldest first; the last is `epoch`")
    snapshot_sequence: Number | None = Field(
        None, description="Snapshot streams: the newest one's last batch; null where it is of an earlier epoch"
    )
    snapshot_sha256: Sha256Hex | None = Field(None, description="Over the newest snapshot's records, without others")
    read_at: AwareDatetime


class RangeDigest(BaseModel):
    """SHA-256 over the hashes of the manifests of a range, and how many there are. A manifest's hash covers its payload
    by the payload's own SHA-256, which an `Audit` holds the payload against."""

    model_config = ConfigDict(extra="forbid")

    count: Number
    digest: Sha256Hex


class Audit(BaseModel):
    """What one side found when it held its payloads and rows against its manifests, up to batch ``through``.

    Counts are of records: every one is exactly one of agreeing, in flight, quarantined, past retention, or a finding;
    those of a batch that is a finding itself are counted in ``records`` alone.
    """

    model_config = ConfigDict(extra="forbid")

    through: Number = 0
    batches: Number = 0
    records: Number = 0
    agree: Number = 0
    in_flight: Number = 0
    quarantined: Number = 0
    past_retention: Number = 0
    findings: list[Finding] = Field(default_factory=list, max_length=20_000)

    def add(self, other: "Audit") -> None:
        """Count another part in."""
        for name in ("batches", "records", "agree", "in_flight", "quarantined", "past_retention"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.through = max(self.through, other.through)
        self.findings += other.findings


class Orphans(BaseModel):
    """Rows that no batch explains."""

    model_config = ConfigDict(extra="forbid")

    findings: list[Finding] = Field(max_length=20_000)


class Repaired(BaseModel):
    """What repairing one batch did: numbers of rows or batches."""

    model_config = ConfigDict(extra="forbid")

    rebuilt: Number = 0
    set_aside: Number = 0
    taken_up_again: bool = False

    @property
    def did_something(self) -> bool:
        return bool(self.rebuilt or self.set_aside or self.taken_up_again)

    def add(self, other: "Repaired") -> None:
        """Count another repair in."""
        self.rebuilt += other.rebuilt
        self.set_aside += other.set_aside
        self.taken_up_again = self.taken_up_again or other.taken_up_again


class SummaryQuestion(BaseModel):
    """What is asked of the other side: the head of a stream, or about its batches from ``first`` to ``last``."""

    model_config = ConfigDict(extra="forbid")

    ask: Literal["head", "digest", "audit", "orphans"]
    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    first: Annotated[int, Field(ge=1, le=2**62)] = 1
    last: Annotated[int, Field(ge=0, le=2**62)] = 0


class RepairOrder(BaseModel):
    """Make the rows of one batch what the batch says; batch 0 stands for rows that no batch explains."""

    model_config = ConfigDict(extra="forbid")

    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    sequence: Annotated[int, Field(ge=0, le=2**62)]


class Side(Protocol):
    """One network's end of the streams, near or at the other end of the link or in a file."""

    @property
    def network(self) -> Network: ...

    @property
    def live(self) -> bool:
        """Whether it may have moved on since: what differs is then looked at a second time."""
        ...

    async def head(self, stream: StreamName) -> StreamHead: ...

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest: ...

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        """As far as one answer goes: the next one begins after ``through``."""
        ...

    async def orphans(self, stream: StreamName) -> list[Finding]:
        """Rows that no batch explains, beyond what an audit sees."""
        ...


class RepairableSide(Side, Protocol):
    """A side that can be repaired, here or over the link. Each method may be called twice."""

    async def repair(self, stream: StreamName, epoch: int, sequence: int) -> Repaired: ...

    async def restore(self, stream: StreamName, wire: bytes) -> Repaired: ...

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None: ...

    async def seal_anew(self, stream: StreamName) -> None:
        """Sender of a snapshot stream only."""
        ...
