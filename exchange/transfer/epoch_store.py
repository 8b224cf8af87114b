"""Epochs of a stream: after which batch each one began, by whose decision, and which batches became void."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.outgoing import StoredBatch
from models.streams import GENESIS, StreamName
from storage.database import execute, row, rows, value


@dataclass(frozen=True)
class Epoch:
    """An epoch that follows batch (``previous_epoch``, ``previous_sequence``), the last one that both sides had.

    Sequence 0 stands before the first batch. Later batches of earlier epochs are void. Epoch 1 has no row.
    """

    epoch: int
    previous_epoch: int
    previous_sequence: int
    reason: str
    ordered_by: str
    begun_at: datetime


async def boundaries(connection: AsyncConnection, stream: StreamName) -> list[Epoch]:
    """The epochs of a stream that began after the first, oldest first."""
    found = await rows(
        connection,
        "SELECT epoch, previous_epoch, previous_sequence, reason, ordered_by, begun_at FROM epochs"
        " WHERE stream = :stream ORDER BY epoch",
        stream=stream,
    )
    return [Epoch(*item) for item in found]


async def record_epoch(
    connection: AsyncConnection,
    stream: StreamName,
    epoch: int,
    previous: tuple[int, int],
    reason: str,
    ordered_by: str,
) -> None:
    """Insert an epoch that begins after batch ``previous``."""
    await execute(
        connection,
        "INSERT INTO epochs (stream, epoch, previous_epoch, previous_sequence, reason, ordered_by)"
        " VALUES (:stream, :epoch, :previous_epoch, :previous_sequence, :reason, :ordered_by)",
        stream=stream,
        epoch=epoch,
        previous_epoch=previous[0],
        previous_sequence=previous[1],
        reason=reason,
        ordered_by=ordered_by,
    )


async def begin_sending(connection: AsyncConnection, stream: StreamName, epoch: int) -> None:
    """Set the sender to the beginning of this epoch. A stopped stream continues; what receipts said is forgotten."""
    await execute(
        connection,
        "UPDATE outgoing_streams SET epoch = :epoch, sequence = 0, record = 0, hash = :genesis, content = NULL,"
        " delivered = 0, applied = 0, quarantined = 0, receipt_at = NULL, receipt_issued_at = NULL, stopped = NULL"
        " WHERE stream = :stream",
        stream=stream,
        epoch=epoch,
        genesis=GENESIS,
    )


async def begin_receiving(connection: AsyncConnection, stream: StreamName, epoch: int) -> None:
    """Set the receiver to the beginning of this epoch. A stopped stream continues."""
    await execute(
        connection,
        "UPDATE incoming_streams SET epoch = :epoch, sequence = 0, record = 0, hash = :genesis, applied = 0,"
        " heard_issued_at = NULL, stopped = NULL WHERE stream = :stream",
        stream=stream,
        epoch=epoch,
        genesis=GENESIS,
    )


async def sealed_between(
    connection: AsyncConnection, stream: StreamName, place: tuple[int, int], before: int
) -> AsyncIterator[StoredBatch]:
    """Own batches after ``place`` and before epoch ``before`` that are not void yet, oldest first, one at a time."""
    while True:
        found = await row(
            connection,
            """
            SELECT epoch, sequence, records, raw_bytes, hash, manifest, signature, payload FROM sealed_batches
            WHERE stream = :stream AND (epoch, sequence) > (:epoch, :sequence) AND epoch < :before
              AND voided_at IS NULL
            ORDER BY epoch, sequence LIMIT 1
            """,
            stream=stream,
            epoch=place[0],
            sequence=place[1],
            before=before,
        )
        if found is None:
            return
        yield StoredBatch(*found)
        place = (found.epoch, found.sequence)


async def void_sealed(connection: AsyncConnection, stream: StreamName, place: tuple[int, int], before: int) -> int:
    """Mark own batches after ``place`` and before epoch ``before`` as void. Returns how many."""
    return await execute(
        connection,
        "UPDATE sealed_batches SET voided_at = now() WHERE stream = :stream AND (epoch, sequence) > (:epoch, :sequence)"
        " AND epoch < :before AND voided_at IS NULL",
        stream=stream,
        epoch=place[0],
        sequence=place[1],
        before=before,
    )


async def first_void(connection: AsyncConnection, stream: StreamName, epoch: int) -> int | None:
    """The first void batch of our own in an epoch; all later ones of the epoch are void, too."""
    found: int | None = await value(
        connection,
        "SELECT min(sequence) FROM sealed_batches WHERE stream = :stream AND epoch = :epoch AND voided_at IS NOT NULL",
        stream=stream,
        epoch=epoch,
    )
    return found


async def emptied_after(connection: AsyncConnection, stream: StreamName, place: tuple[int, int]) -> tuple[int, int]:
    """Own batches after ``place``, and their records, that cannot be sealed again: their payload is past retention."""
    found = await row(
        connection,
        "SELECT count(*), coalesce(sum(records), 0) FROM sealed_batches WHERE stream = :stream"
        " AND (epoch, sequence) > (:epoch, :sequence) AND voided_at IS NULL AND payload IS NULL AND records > 0",
        stream=stream,
        epoch=place[0],
        sequence=place[1],
    )
    assert found is not None
    return found[0], found[1]


async def received_places(
    connection: AsyncConnection, stream: StreamName, place: tuple[int, int], before: datetime | None = None
) -> list[tuple[int, int]]:
    """Epoch and number of the batches received after ``place``, and before ``before`` if given, oldest first."""
    found = await rows(
        connection,
        "SELECT epoch, sequence FROM received_batches WHERE stream = :stream"
        " AND (epoch, sequence) > (:epoch, :sequence)"
        " AND (CAST(:before AS timestamptz) IS NULL OR received_at < CAST(:before AS timestamptz))"
        " ORDER BY epoch, sequence",
        stream=stream,
        epoch=place[0],
        sequence=place[1],
        before=before,
    )
    return [(epoch, sequence) for epoch, sequence in found]
