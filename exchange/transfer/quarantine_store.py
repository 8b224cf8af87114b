"""Quarantine: records that crossed and cannot be applied. An operator retries or drops them.

A row is never deleted. It is *open* until a retry applies the record (``applied_at``) or an operator drops it.
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
    """A record in quarantine, without its body. ``size`` in bytes; ``sequence`` is the batch that brought it."""

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


async def quarantine(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, record: int, body: bytes, reason: str
) -> None:
    """Store a record with the reason why it cannot be applied."""
    added = await execute(
        connection,
        "INSERT INTO quarantined_records (stream, epoch, record, sequence, reason, body)"
        " VALUES (:stream, :epoch, :record, :sequence, :reason, :body) ON CONFLICT DO NOTHING",
        stream=stream,
        epoch=epoch,
        record=record,
        sequence=sequence,
        reason=as_reason(reason),
        body=body,
    )
    await execute(
        connection,
        "UPDATE incoming_streams SET quarantined = quarantined + :added WHERE stream = :stream",
        stream=stream,
        added=added,
    )


async def list_quarantined(
    connection: AsyncConnection,
    streams: Collection[StreamName],
    dropped: bool = False,
    after: tuple[str, int, int] = ("", 0, 0),
    limit: int = 1000,
) -> list[QuarantinedRecord]:
    """Open records of these streams, or the dropped ones, after place ``after``, by stream, epoch and number."""
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


async def find_quarantined(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int
) -> tuple[QuarantinedRecord, bytes] | None:
    """A record in quarantine, open or not, and its body."""
    found = await row(
        connection,
        f"SELECT {_COLUMNS}, body FROM quarantined_records"
        " WHERE stream = :stream AND epoch = :epoch AND record = :record",
        stream=stream,
        epoch=epoch,
        record=record,
    )
    return (QuarantinedRecord(StreamName(found.stream), *found[1:-1]), found.body) if found else None


async def quarantined_numbers(
    connection: AsyncConnection, stream: StreamName, epoch: int, first_record: int, records: int
) -> set[int]:
    """Numbers of the quarantined records among ``records`` from ``first_record`` on, dropped ones too."""
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
    """Records of a stream in quarantine, dropped ones too."""
    counted: int = await value(
        connection,
        "SELECT count(*) FROM quarantined_records WHERE stream = :stream AND applied_at IS NULL",
        stream=stream,
    )
    return counted


async def record_retry(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int, refused: str | None
) -> None:
    """Record a retry of an open record: it was applied, or stays for the reason ``refused``."""
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


async def drop_quarantined(
    connection: AsyncConnection, stream: StreamName, epoch: int, record: int, dropped_by: str, reason: str
) -> None:
    """Drop a record, if it is open."""
    await execute(
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


async def _count_open(connection: AsyncConnection, stream: StreamName) -> None:
    """Update the number that receipts carry. The caller holds `lock_applying`, so nobody counts at the same time."""
    await execute(
        connection,
        "UPDATE incoming_streams SET quarantined ="
        f" (SELECT count(*) FROM quarantined_records WHERE stream = :stream AND {_OPEN}) WHERE stream = :stream",
        stream=stream,
    )


def as_reason(text: str) -> str:
    """A reason as PostgreSQL can store it: text holds neither NUL nor lone surrogates, and the reason may quote any."""
    return text[:1000].encode(errors="replace").decode().replace("\0", "\ufffd")
