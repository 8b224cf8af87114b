"""Messages for comparing the two sides of a stream: heads, digests of ranges, findings. They hold no contents."""

from enum import StrEnum
from typing import Annotated, Literal, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from exchange.wire.manifest import Number, Sha256Hex
from models.foreign_text import Cleaned
from models.requests import Moment
from models.streams import Network, StreamName

BATCHES_PER_DIGEST = 5000
"""Most batches in one digest. Where it differs, the digests of both halves are compared."""
BATCHES_PER_AUDIT = 200
RECORDS_PER_AUDIT = 50_000
SECONDS_PER_AUDIT = 5.0
FINDINGS_PER_AUDIT = 500
"""An audit ends after the batch that reaches one of these limits, so its answer is bounded in size and time."""

Table = Literal["epochs", "sealed_batches", "received_batches", "requests", "cancellations", "results", "snapshots"]


class Kind(StrEnum):
    """How a row or a batch differs."""

    MISSING = "missing"
    DIFFERENT = "different"
    EXTRA = "extra"


class Finding(BaseModel):
    """One difference and its place. It names ids and numbers, never contents."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Network
    stream: StreamName
    table: Table
    kind: Kind
    epoch: int = 1
    sequence: int
    record: int | None = None
    request_id: UUID | None = None
    detail: Cleaned = Field("", max_length=500)

    @property
    def is_row(self) -> bool:
        """Whether a row differs, rather than a batch or an epoch."""
        return self.table not in ("epochs", "sealed_batches", "received_batches")


class EpochSpan(BaseModel):
    """One epoch on one side: the batch of an earlier epoch that it follows, and its newest batch here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    previous_epoch: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    previous_sequence: Number = 0
    through: Number = Field(description="Newest batch of it that this side has")


class StreamHead(BaseModel):
    """The end of a stream on one side. ``hash`` is that of batch ``sequence``, all zeros before the first."""

    model_config = ConfigDict(extra="forbid")

    network: Network
    stream: StreamName
    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    sequence: Number
    record: Number
    hash: Sha256Hex
    applied: Number = Field(description="Batches applied; on the sending side, as the newest receipt says")
    pending: Number = Field(0, description="Sending side: records that are not sealed yet")
    quarantined: Number = 0
    stopped: Cleaned | None = None
    epochs: list[EpochSpan] = Field(min_length=1, max_length=10_000, description="Oldest first; the last is `epoch`")
    snapshot_sequence: Number | None = Field(
        None, description="Snapshot streams: last batch of the newest snapshot; null if it is of an earlier epoch"
    )
    snapshot_sha256: Sha256Hex | None = Field(None, description="Over the records of the newest snapshot")
    read_at: Moment


class RangeDigest(BaseModel):
    """SHA-256 over the hashes of the manifests of a range, and how many there are.

    A manifest contains the SHA-256 of its payload; an `Audit` compares the payload with it.
    """

    model_config = ConfigDict(extra="forbid")

    count: Number
    digest: Sha256Hex


class Audit(BaseModel):
    """The result of comparing one side's payloads and rows with its manifests, up to batch ``through``.

    Counts are of records. Each record agrees, is in flight, quarantined or past retention, or is a finding. The records
    of a batch that is a finding itself are counted in ``records`` only.
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
        """Add the counts and findings of another audit."""
        for name in ("batches", "records", "agree", "in_flight", "quarantined", "past_retention"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.through = max(self.through, other.through)
        self.findings += other.findings


class Orphans(BaseModel):
    """Rows that belong to no batch."""

    model_config = ConfigDict(extra="forbid")

    findings: list[Finding] = Field(max_length=20_000)


class Repaired(BaseModel):
    """The result of a repair: numbers of rows or batches, and whether requests will be executed again."""

    model_config = ConfigDict(extra="forbid")

    rebuilt: Number = 0
    set_aside: Number = 0
    taken_up_again: bool = False

    @property
    def did_something(self) -> bool:
        return bool(self.rebuilt or self.set_aside or self.taken_up_again)

    def add(self, other: "Repaired") -> None:
        """Add the counts of another repair."""
        self.rebuilt += other.rebuilt
        self.set_aside += other.set_aside
        self.taken_up_again = self.taken_up_again or other.taken_up_again


class SummaryQuestion(BaseModel):
    """A question to the other side about a stream, or about its batches from ``first`` to ``last``."""

    model_config = ConfigDict(extra="forbid")

    ask: Literal["head", "digest", "audit", "orphans"]
    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)] = 1
    first: Annotated[int, Field(ge=1, le=2**62)] = 1
    last: Annotated[int, Field(ge=0, le=2**62)] = 0


class RepairOrder(BaseModel):
    """An order to rebuild the rows of one batch. Batch 0 stands for rows that belong to no batch."""

    model_config = ConfigDict(extra="forbid")

    epoch: Annotated[int, Field(ge=1, le=2**31 - 1)]
    sequence: Annotated[int, Field(ge=0, le=2**62)]


class Side(Protocol):
    """One network's end of the streams: local, over the link, or in a file."""

    @property
    def network(self) -> Network: ...

    @property
    def live(self) -> bool:
        """Whether it may have changed since it was read. Differences are then checked a second time."""
        ...

    async def head(self, stream: StreamName) -> StreamHead: ...

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest: ...

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        """Audit the first batches of a range. The next call begins after ``through``."""
        ...

    async def orphans(self, stream: StreamName) -> list[Finding]:
        """Rows that belong to no batch; an audit does not find these."""
        ...


class RepairableSide(Side, Protocol):
    """A side that can be repaired, locally or over the link. Each method may be called twice."""

    async def repair(self, stream: StreamName, epoch: int, sequence: int) -> Repaired: ...

    async def restore(self, stream: StreamName, wire: bytes) -> Repaired: ...

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None: ...

    async def seal_anew(self, stream: StreamName) -> None:
        """Make the next export seal the snapshot anew. Only for the sender of a snapshot stream."""
        ...
