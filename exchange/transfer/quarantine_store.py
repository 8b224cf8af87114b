"""Quarantine: records that crossed and cannot be applied. An operator retries or drops them.

A row is never deleted. It is *open* until a retry applies the record (``applied_at``) or an operator drops it.

What is kept is bounded, since the other side decides how much comes: from `MOST_ROWS` open records of a stream, or
`MOST_BYTES` of their bodies, the stream stops. Until it does, only the beginnings of bodies are stored: the whole ones
stay in the payloads of their batches, which retention then keeps.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.incoming import received_batch, records_of, stop_incoming
from models.foreign_text import cleaned
from models.streams import BatchRef, StreamName
from storage.database import execute, row, rows, value

MOST_ROWS = 10_000
MOST_BYTES = 64 * 1024 * 1024
"""A stream stops with this many open records, or bytes of their bodies."""
SHORTENED_BYTES = 1024
"""Bytes of a body that are kept beyond `MOST_BYTES`, or of a record that was dropped or applied long ago."""

RejectedRecord = tuple[int, bytes, str]
"""Number, body and reason of a record that cannot be applied."""

_OPEN = "applied_at IS NULL AND dropped_at IS NULL"
_COLUMNS = (
    "stream, epoch, record, sequence, reason, size, quarantined_at, retries, retried_at, applied_at,"
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


async def quarantine(connection: AsyncConnection, batch: BatchRef, rejected: Sequence[RejectedRecord]) -> None:
    """Store records of a batch, each with the reason why it cannot be applied, in one statement.

    Stops the stream if its quarantine is full then. The caller holds `lock_applying`.
    """
    if not rejected:
        return
    stream = batch.stream
    rows_open, bytes_open = await open_size(connection, stream)
    room = MOST_BYTES - bytes_open
    kept: list[bytes] = []
    for _, body, _ in rejected:
        room -= len(body)
        kept.append(body if room >= 0 else body[:SHORTENED_BYTES])
    added = await execute(
        connection,
        """
        INSERT INTO quarantined_records (stream, epoch, sequence, record, size, reason, body)
        SELECT :stream, :epoch, :sequence, record, size, reason, body FROM unnest(
            CAST(:records AS bigint[]), CAST(:sizes AS integer[]), CAST(:reasons AS text[]), CAST(:bodies AS bytea[]))
            AS given (record, size, reason, body)
        ON CONFLICT DO NOTHING
        """,
        stream=stream,
        epoch=batch.epoch,
        sequence=batch.sequence,
        records=[number for number, _, _ in rejected],
        sizes=[len(body) for _, body, _ in rejected],
        reasons=[cleaned(reason) for _, _, reason in rejected],
        bodies=kept,
    )
    await _count_open(connection, stream)
    if rows_open + added >= MOST_ROWS or room <= 0:
        reason = (
            f"its quarantine is full: {rows_open + added} records wait for an operator. Retry them, or drop them"
            f" (airlock quarantine drop {stream} --all --reason …), then: airlock stream new-epoch {stream}"
        )
        await stop_incoming(connection, stream, reason)


async def open_size(connection: AsyncConnection, stream: StreamName) -> tuple[int, int]:
    """How many records of a stream are open, and the bytes of their bodies as they came."""
    found = await row(
        connection,
        f"SELECT count(*), coalesce(sum(size), 0) FROM quarantined_records WHERE stream = :stream AND {_OPEN}",
        stream=stream,
    )
    assert found is not None
    return found[0], int(found[1])


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
    """A record in quarantine, open or not, and its body: whole, or its beginning if its batch is past retention."""
    found = await row(
        connection,
        f"SELECT {_COLUMNS}, body FROM quarantined_records"
        " WHERE stream = :stream AND epoch = :epoch AND record = :record",
        stream=stream,
        epoch=epoch,
        record=record,
    )
    if found is None:
        return None
    aside = QuarantinedRecord(StreamName(found.stream), *found[1:-1])
    return aside, await _whole(connection, aside, found.body)


async def _whole(connection: AsyncConnection, aside: QuarantinedRecord, body: bytes) -> bytes:
    if len(body) == aside.size:
        return body
    batch = await received_batch(connection, aside.stream, aside.epoch, aside.sequence)
    if batch is None or batch.payload is None:
        return body
    return (await records_of(batch))[aside.record - batch.first_record]


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
        f"SELECT {_COLUMNS}, body FROM quarantined_records WHERE stream = :stream AND epoch = :epoch AND {_OPEN}"
        " AND sequence BETWEEN :first AND :last ORDER BY record",
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
    )
    asides = [(QuarantinedRecord(StreamName(item.stream), *item[1:-1]), item.body) for item in found]
    return [(aside.record, await _whole(connection, aside, body)) for aside, body in asides]


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
        refused=None if refused is None else cleaned(refused),
    )
    await _count_open(connection, stream)


async def drop_quarantined(
    connection: AsyncConnection, stream: StreamName, epoch: int, records: Sequence[int], dropped_by: str, reason: str
) -> int:
    """Drop those of these records that are open. Returns how many were."""
    dropped = await execute(
        connection,
        "UPDATE quarantined_records SET dropped_at = now(), dropped_by = :dropped_by, drop_reason = :reason"
        " WHERE stream = :stream AND epoch = :epoch AND record = ANY(CAST(:records AS bigint[]))"
        f" AND {_OPEN}",
        stream=stream,
        epoch=epoch,
        records=list(records),
        dropped_by=cleaned(dropped_by),
        reason=cleaned(reason),
    )
    await _count_open(connection, stream)
    return dropped


async def open_page(
    connection: AsyncConnection, stream: StreamName, epoch: int | None, first: int, last: int | None, limit: int
) -> list[tuple[int, int, bytes]]:
    """The oldest open records: epoch, number and the stored part of the body. Only of ``epoch``, and only from number
    ``first`` to ``last``, where these are given.
    """
    found = await rows(
        connection,
        f"SELECT epoch, record, body FROM quarantined_records WHERE stream = :stream AND {_OPEN}"
        " AND (CAST(:epoch AS integer) IS NULL OR epoch = CAST(:epoch AS integer)) AND record >= :first"
        " AND (CAST(:last AS bigint) IS NULL OR record <= CAST(:last AS bigint)) ORDER BY epoch, record LIMIT :limit",
        stream=stream,
        epoch=epoch,
        first=first,
        last=last,
        limit=limit,
    )
    return [(each, record, body) for each, record, body in found]


async def _count_open(connection: AsyncConnection, stream: StreamName) -> None:
    """Update the number that receipts carry. The caller holds `lock_applying`, so nobody counts at the same time."""
    await execute(
        connection,
        "UPDATE incoming_streams SET quarantined ="
        f" (SELECT count(*) FROM quarantined_records WHERE stream = :stream AND {_OPEN}) WHERE stream = :stream",
        stream=stream,
    )
