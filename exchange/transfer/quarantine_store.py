"""Records that crossed and cannot be applied: set aside with the reason, then retried or dropped by an operator.

A row is never deleted. It is *open* until a retry applied its record or an operator dropped it. ``applied_at`` says
that the record is where it belongs; all others count as set aside, the dropped ones for good.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName
from storage.database import execute, row, rows, value

_OPEN = "applied_at IS NULL AND dropped_at IS NULL"
_COLUMNS = (
    "stream, epoch, record, sequence, reason, octet_length(body), quarantined_at, retries, retried_at, applied_at,"
    " dropped_at, dropped_by, drop_reason"
)


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record in quarantine, without its body; ``size`` in bytes, ``sequence`` the batch that it came in."""

    stream: StreamName
    epoch: int
    record: int
    sequence: int
    reason: str
    size: int
    quarantined_at: datetime
    retries: int
    retried_at: datetime | None
    applied_at: datetime | None
    dropped_at: datetime | None
    dropped_by: str | None
    drop_reason: str | None

    @property
    def is_open(self) -> bool:
        return self.applied_at is None and self.dropped_at is None

    @property
    def name(self) -> str:
        """As an operator writes it: ``epoch.record``."""
        return f"{self.epoch}.{self.record}"


async def list_quarantined(
    connection: AsyncConnection,
    streams: Collection[StreamName],
    dropped: bool = False,
    after: tuple[str, int, int] = ("", 0, 0),
    limit: int = 1000,
) -> list[QuarantinedRecord]:
    """Open records of these streams, or the dropped ones, by stream, epoch and number, from the one after ``after``."""
    found = await rows(
        connection,
        f"SELECT {_COLUMNS} FROM quarantined_records WHERE {'dropped_at IS NOT NULL' if dropped else _OPEN}"
        " AND stream = ANY(CAST(:streams AS text[])) AND (stream, epoch, record) > (:stream, :epoch, :record)"
        " ORDER BY stream, epoch, record LIMIT :limit",
        streams=[stream.value for stream in streams],
        stream=after[0],
        epoch=after[1],
        record=after[2],
        limit=limit,
    )
    return [QuarantinedRecord(StreamName(item.stream), *item[1:]) for item in found]


async def find_set_aside(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int
) -> tuple[QuarantinedRecord, bytes] | None:
    """A record in quarantine, whatever has become of it, and its body."""
    found = await row(
        connection,
        f"SELECT {_COLUMNS}, body FROM quarantined_records"
        " WHERE stream = :stream AND epoch = :epoch AND record = :record",
        stream=stream,
        epoch=epoch,
        record=record,
    )
    return (QuarantinedRecord(StreamName(found.stream), *found[1:-1]), found.body) if found else None


async def numbers_set_aside(
    connection: AsyncConnection, stream: StreamName, epoch: int, first_record: int, records: int
) -> set[int]:
    """Which records of a batch are set aside: applying the batch once more leaves them to the operator."""
    found = await rows(
        connection,
        "SELECT record FROM quarantined_records WHERE stream = :stream AND epoch = :epoch"
        " AND record >= :first AND record < :end AND applied_at IS NULL",
        stream=stream,
        epoch=epoch,
        first=first_record,
        end=first_record + records,
    )
    return {number for (number,) in found}


async def open_of_batches(
    connection: AsyncConnection, stream: StreamName, epoch: int, first: int, last: int
) -> list[tuple[int, bytes]]:
    """Numbers and bodies of the open records of the batches from ``first`` to ``last``."""
    found = await rows(
        connection,
        f"SELECT record, body FROM quarantined_records WHERE stream = :stream AND epoch = :epoch AND {_OPEN}"
        " AND sequence BETWEEN :first AND :last ORDER BY record",
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
    )
    return [(number, body) for number, body in found]


async def count_quarantined(connection: AsyncConnection, stream: StreamName) -> int:
    """Records of a stream that are set aside, dropped ones with them."""
    counted: int = await value(
        connection,
        "SELECT count(*) FROM quarantined_records WHERE stream = :stream AND applied_at IS NULL",
        stream=stream,
    )
    return counted


async def record_retry(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int, refused: str | None
) -> None:
    """Note that an open record was tried again: it is applied, or stays for the reason ``refused``."""
    await execute(
        connection,
        f"""
        UPDATE quarantined_records SET retries = retries + 1, retried_at = now(),
            reason = coalesce(CAST(:refused AS text), reason),
            applied_at = CASE WHEN CAST(:refused AS text) IS NULL THEN now() END
        WHERE stream = :stream AND epoch = :epoch AND record = :record AND {_OPEN}
        """,
        stream=stream,
        epoch=epoch,
        record=record,
        refused=None if refused is None else as_reason(refused),
    )
    await _count_open(connection, stream)


async def drop_set_aside(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int, dropped_by: str, reason: str
) -> bool:
    """An operator gives an open record up; False where it is not open."""
    changed = await execute(
        connection,
        "UPDATE quarantined_records SET dropped_at = now(), dropped_by = :dropped_by, drop_reason = :reason"
        f" WHERE stream = :stream AND epoch = :epoch AND record = :record AND {_OPEN}",
        stream=stream,
        epoch=epoch,
        record=record,
        dropped_by=dropped_by,
        reason=as_reason(reason),
    )
    await _count_open(connection, stream)
    return changed > 0


async def _count_open(connection: AsyncConnection, stream: StreamName) -> None:
    """Bring the number that receipts carry up to date. Who applies or settles holds `lock_applying`: nobody counts
    at the same time.
    """
    await execute(
        connection,
        "UPDATE incoming_streams SET quarantined ="
        f" (SELECT count(*) FROM quarantined_records WHERE stream = :stream AND {_OPEN}) WHERE stream = :stream",
        stream=stream,
    )


def as_reason(text: str) -> str:
    """A reason as it is stored: it may quote anything, and PostgreSQL's text holds neither NUL nor lone surrogates."""
    return text[:1000].encode(errors="replace").decode().replace("\0", "\ufffd")
