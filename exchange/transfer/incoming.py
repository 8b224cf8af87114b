"""The receiver's end of a stream: received batches, the cursor, what is applied and what is set aside."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import GENESIS, BatchRef, StreamName
from storage.database import execute, lock_until_commit, row, rows, value


@dataclass(frozen=True)
class IncomingStream:
    """Numbers count from 1 within the epoch; 0 means none yet."""

    stream: StreamName
    epoch: int
    sequence: int
    record: int
    hash: bytes
    applied: int
    quarantined: int
    heard_at: datetime | None
    stopped: str | None


@dataclass(frozen=True)
class ReceivedBatch:
    """A received batch as it lies in the table."""

    epoch: int
    sequence: int
    first_record: int
    records: int
    manifest: bytes
    signature: bytes
    payload: bytes


_COLUMNS = "stream, epoch, sequence, record, hash, applied, quarantined, heard_at, stopped"


async def incoming_stream(connection: AsyncConnection, stream: StreamName) -> IncomingStream:
    """Where the stream stands at its receiver; begun at its first use."""
    found = await row(connection, f"SELECT {_COLUMNS} FROM incoming_streams WHERE stream = :stream", stream=stream)
    if found is None:
        await execute(
            connection,
            "INSERT INTO incoming_streams (stream, hash) VALUES (:stream, :genesis) ON CONFLICT DO NOTHING",
            stream=stream,
            genesis=GENESIS,
        )
        return await incoming_stream(connection, stream)
    return IncomingStream(StreamName(found.stream), *found[1:])


async def lock_receiving(connection: AsyncConnection, stream: StreamName) -> None:
    """One receiver at a time per stream: waits for its turn, which lasts until the transaction ends."""
    await lock_until_commit(connection, f"receive {stream}")


async def lock_applying(connection: AsyncConnection, stream: StreamName) -> None:
    """One applier at a time per stream: waits for its turn, which lasts until the transaction ends."""
    await lock_until_commit(connection, f"apply {stream}")


async def store_received(
    connection: AsyncConnection, stream: StreamName, batches: Sequence[tuple[ReceivedBatch, bytes]]
) -> None:
    """Store verified batches that came together, each with its hash and in order, and move the cursor to the last, in
    the caller's transaction.
    """
    last, head = batches[-1]
    await execute(
        connection,
        """
        INSERT INTO received_batches
            (stream, epoch, sequence, first_record, records, hash, manifest, signature, payload)
        SELECT :stream, :epoch, sequence, first_record, records, hash, manifest, signature, payload
        FROM unnest(
            CAST(:sequences AS bigint[]), CAST(:first_records AS bigint[]), CAST(:records AS integer[]),
            CAST(:hashes AS bytea[]), CAST(:manifests AS bytea[]), CAST(:signatures AS bytea[]),
            CAST(:payloads AS bytea[]))
            AS given (sequence, first_record, records, hash, manifest, signature, payload)
        """,
        stream=stream,
        epoch=last.epoch,
        sequences=[batch.sequence for batch, _ in batches],
        first_records=[batch.first_record for batch, _ in batches],
        records=[batch.records for batch, _ in batches],
        hashes=[batch_hash for _, batch_hash in batches],
        manifests=[batch.manifest for batch, _ in batches],
        signatures=[batch.signature for batch, _ in batches],
        payloads=[batch.payload for batch, _ in batches],
    )
    await execute(
        connection,
        "UPDATE incoming_streams SET sequence = :sequence, record = :record, hash = :hash, heard_at = now()"
        " WHERE stream = :stream",
        stream=stream,
        sequence=last.sequence,
        record=last.first_record + last.records - 1,
        hash=head,
    )


async def received_hash(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
    """The hash of a batch that was received."""
    found: bytes | None = await value(
        connection,
        "SELECT hash FROM received_batches WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )
    return found


async def received_range(connection: AsyncConnection, ref: BatchRef) -> list[ReceivedBatch]:
    """Those of these received batches that are not applied yet, in order."""
    found = await rows(
        connection,
        "SELECT epoch, sequence, first_record, records, manifest, signature, payload FROM received_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence BETWEEN :first AND :last AND applied_at IS NULL"
        " ORDER BY sequence",
        stream=ref.stream,
        epoch=ref.epoch,
        first=ref.begin,
        last=ref.sequence,
    )
    return [ReceivedBatch(*each) for each in found]


async def received_batch(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int
) -> ReceivedBatch | None:
    """One received batch that is not applied yet."""
    found = await row(
        connection,
        "SELECT epoch, sequence, first_record, records, manifest, signature, payload FROM received_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence AND applied_at IS NULL",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )
    return ReceivedBatch(*found) if found else None


async def first_unapplied(
    connection: AsyncConnection, stream: StreamName, after: BatchRef | None = None
) -> ReceivedBatch | None:
    """The oldest batch that is stored and not applied, of those behind ``after`` where that is given."""
    found = await row(
        connection,
        "SELECT epoch, sequence, first_record, records, manifest, signature, payload FROM received_batches"
        " WHERE stream = :stream AND applied_at IS NULL AND (epoch, sequence) > (:epoch, :sequence)"
        " ORDER BY epoch, sequence LIMIT 1",
        stream=stream,
        epoch=after.epoch if after else 0,
        sequence=after.sequence if after else 0,
    )
    return ReceivedBatch(*found) if found else None


async def is_unapplied(connection: AsyncConnection, batch: BatchRef) -> bool:
    """Whether a batch is stored and not applied."""
    found: bool = await value(
        connection,
        "SELECT EXISTS (SELECT FROM received_batches WHERE stream = :stream AND epoch = :epoch"
        " AND sequence = :sequence AND applied_at IS NULL)",
        stream=batch.stream,
        epoch=batch.epoch,
        sequence=batch.sequence,
    )
    return found


async def unapplied(
    connection: AsyncConnection, stream: StreamName, older_than_seconds: float = 0.0, limit: int = 200
) -> list[BatchRef]:
    """Batches that are stored and not applied, oldest first."""
    found = await rows(
        connection,
        "SELECT epoch, sequence, records FROM received_batches WHERE stream = :stream AND applied_at IS NULL"
        " AND received_at <= now() - make_interval(secs => :age) ORDER BY epoch, sequence LIMIT :limit",
        stream=stream,
        age=older_than_seconds,
        limit=limit,
    )
    return [BatchRef(stream=stream, epoch=epoch, sequence=sequence, records=count) for epoch, sequence, count in found]


async def count_unapplied(connection: AsyncConnection, stream: StreamName, epoch: int, before: int) -> int:
    """How many batches of lower numbers than ``before`` are stored and not applied."""
    found: int = await value(
        connection,
        "SELECT count(*) FROM received_batches WHERE stream = :stream AND epoch = :epoch AND sequence < :before"
        " AND applied_at IS NULL",
        stream=stream,
        epoch=epoch,
        before=before,
    )
    return found


async def mark_applied(
    connection: AsyncConnection,
    stream: StreamName,
    epoch: int,
    sequence: int,
    superseded: bool = False,
    first: int | None = None,
) -> bool:
    """Note that a batch, or all from ``first`` to it, is applied, and how far the unbroken run of applied ones goes;
    False if it was before.
    """
    changed = await execute(
        connection,
        "UPDATE received_batches SET applied_at = now(), superseded = :superseded WHERE stream = :stream"
        " AND epoch = :epoch AND sequence BETWEEN :first AND :sequence AND applied_at IS NULL",
        stream=stream,
        epoch=epoch,
        first=sequence if first is None else first,
        sequence=sequence,
        superseded=superseded,
    )
    await execute(
        connection,
        """
        UPDATE incoming_streams SET applied = coalesce(
            (SELECT min(received_batches.sequence) - 1 FROM received_batches
             WHERE received_batches.stream = :stream AND received_batches.epoch = incoming_streams.epoch
             AND applied_at IS NULL),
            incoming_streams.sequence)
        WHERE stream = :stream
        """,
        stream=stream,
    )
    return changed > 0


async def quarantine(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, record: int, body: bytes, reason: str
) -> None:
    """Set a record aside with its reason, so that it blocks nothing and is not forgotten."""
    added = await execute(
        connection,
        "INSERT INTO quarantined_records (stream, epoch, record, sequence, reason, body)"
        " VALUES (:stream, :epoch, :record, :sequence, :reason, :body) ON CONFLICT DO NOTHING",
        stream=stream,
        epoch=epoch,
        record=record,
        sequence=sequence,
        reason=reason[:1000].replace("\0", "\ufffd"),  # it may quote the record, and text holds no NUL
        body=body,
    )
    await execute(
        connection,
        "UPDATE incoming_streams SET quarantined = quarantined + :added WHERE stream = :stream",
        stream=stream,
        added=added,
    )


async def record_heard(connection: AsyncConnection, stream: StreamName, issued_at: datetime) -> None:
    """The sender said where its stream ends, at ``issued_at`` by its own clock.

    It is a sign of life only if it is newer than the last: a replay by somebody on the way must not make a dead link
    look alive.
    """
    await execute(
        connection,
        """
        UPDATE incoming_streams
        SET heard_at = CASE WHEN heard_issued_at >= :issued_at THEN heard_at ELSE now() END,
            heard_issued_at = greatest(heard_issued_at, :issued_at)
        WHERE stream = :stream
        """,
        stream=stream,
        issued_at=issued_at,
    )


async def stop_incoming(connection: AsyncConnection, stream: StreamName, reason: str, epoch: int | None = None) -> None:
    """Accept nothing more: the histories of the two sides differ and an operator must decide.

    ``epoch`` is the one in which that was seen: what goes wrong with an epoch that has ended stops no later one.
    """
    await execute(
        connection,
        "UPDATE incoming_streams SET stopped = :reason WHERE stream = :stream AND stopped IS NULL"
        " AND epoch = coalesce(CAST(:epoch AS integer), epoch)",
        stream=stream,
        reason=reason,
        epoch=epoch,
    )
