"""The receiver's end of a stream: its cursor, and the received batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.concurrency import in_thread_if_large
from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest
from models.foreign_text import cleaned
from models.streams import GENESIS, BatchRef, StreamName
from storage.database import execute, lock_until_commit, row, rows, value


@dataclass(frozen=True)
class IncomingStream:
    """The receiver's position in a stream. Numbers count from 1 within the epoch; 0 means none yet."""

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
    """A row of `received_batches`."""

    epoch: int
    sequence: int
    first_record: int
    records: int
    manifest: bytes
    signature: bytes
    payload: bytes


_COLUMNS = "stream, epoch, sequence, record, hash, applied, quarantined, heard_at, stopped"


async def incoming_stream(connection: AsyncConnection, stream: StreamName) -> IncomingStream:
    """The receiver's position in a stream. The row is inserted at its first use."""
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
    """Wait for the lock of the stream's single receiver; it is held until the transaction ends."""
    await lock_until_commit(connection, f"receive {stream}")


async def lock_applying(connection: AsyncConnection, stream: StreamName) -> None:
    """Wait for the lock of the stream's single applier; it is held until the transaction ends."""
    await lock_until_commit(connection, f"apply {stream}")


async def store_received(
    connection: AsyncConnection, stream: StreamName, batches: Sequence[tuple[ReceivedBatch, bytes]]
) -> None:
    """Store consecutive verified batches, each with its hash, and move the cursor to the last one."""
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
    """The hash of a received batch; None if there is none."""
    found: bytes | None = await value(
        connection,
        "SELECT hash FROM received_batches WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )
    return found


async def received_range(connection: AsyncConnection, ref: BatchRef) -> list[ReceivedBatch]:
    """The batches of a range that are not applied yet, in order."""
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
    """A received batch, applied or not. Its payload is None past retention."""
    found = await row(
        connection,
        "SELECT epoch, sequence, first_record, records, manifest, signature, payload FROM received_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )
    return ReceivedBatch(*found) if found else None


async def records_of(stored: ReceivedBatch) -> list[bytes]:
    """The records of a stored batch. Raises `Malformed` if its bytes have changed since they were verified."""
    manifest = Manifest.model_validate_json(stored.manifest)
    return await in_thread_if_large(manifest.raw_bytes, unpack, manifest, stored.payload)


async def first_unapplied(
    connection: AsyncConnection, stream: StreamName, after: BatchRef | None = None
) -> ReceivedBatch | None:
    """The oldest batch that is stored and not applied, after batch ``after`` if that is given."""
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


async def count_unapplied_records(connection: AsyncConnection, stream: StreamName) -> int:
    """Records in batches that are stored and not applied."""
    found: int = await value(
        connection,
        "SELECT coalesce(sum(records), 0) FROM received_batches WHERE stream = :stream AND applied_at IS NULL",
        stream=stream,
    )
    return found


async def count_unapplied_pulls(connection: AsyncConnection, stream: StreamName, epoch: int, before: int) -> int:
    """How many earlier pulls brought batches, with numbers below ``before``, that are not all applied.

    The batches of one pull are stored in one transaction, so they have the same ``received_at``.
    """
    found: int = await value(
        connection,
        "SELECT count(DISTINCT received_at) FROM received_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence < :before AND applied_at IS NULL",
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
    """Mark a batch, or all from ``first`` to it, as applied, and update the position up to which all are applied.

    Returns False if nothing changed.
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


async def record_heard(connection: AsyncConnection, stream: StreamName, issued_at: datetime) -> None:
    """Record a message of the sender, issued at ``issued_at`` by its clock.

    It is a sign of life only if it is newer than the last one: a replay must not make a dead link look alive.
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
    """Accept no more batches: the histories of the two sides differ and an operator must decide.

    With ``epoch``, only that epoch is stopped, not a later one.
    """
    await execute(
        connection,
        "UPDATE incoming_streams SET stopped = :reason WHERE stream = :stream AND stopped IS NULL"
        " AND epoch = coalesce(CAST(:epoch AS integer), epoch)",
        stream=stream,
        reason=cleaned(reason),
        epoch=epoch,
    )
