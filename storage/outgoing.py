"""The sender's end of a stream: outbox, sealed batches, and how far receipts go."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName
from storage.database import lock_until_commit, row, rows, run, value


@dataclass(frozen=True)
class OutgoingStream:
    """Numbers count from 1 within the epoch; 0 means none yet."""

    stream: StreamName
    epoch: int
    sequence: int
    record: int
    hash: bytes
    content: bytes | None
    delivered: int
    applied: int
    quarantined: int
    receipt_at: datetime | None
    stopped: str | None


@dataclass(frozen=True)
class StoredBatch:
    """A sealed batch as it lies in the table."""

    epoch: int
    sequence: int
    records: int
    hash: bytes
    manifest: bytes
    signature: bytes
    payload: bytes | None


_COLUMNS = "stream, epoch, sequence, record, hash, content, delivered, applied, quarantined, receipt_at, stopped"


async def outgoing_stream(connection: AsyncConnection, stream: StreamName) -> OutgoingStream:
    """Where the stream stands at its sender; begun at its first use."""
    found = await row(connection, f"SELECT {_COLUMNS} FROM outgoing_streams WHERE stream = :stream", stream=stream)
    if found is None:
        await run(
            connection,
            "INSERT INTO outgoing_streams (stream, hash) VALUES (:stream, :genesis) ON CONFLICT DO NOTHING",
            stream=stream,
            genesis=bytes(32),
        )
        return await outgoing_stream(connection, stream)
    return OutgoingStream(StreamName(found.stream), *found[1:])


async def hold_sealing(connection: AsyncConnection, stream: StreamName) -> None:
    """One sealer at a time per stream: waits for its turn, which lasts until the transaction ends."""
    await lock_until_commit(connection, f"seal {stream}")


async def append_to_outbox(connection: AsyncConnection, stream: StreamName, bodies: Sequence[bytes]) -> None:
    """Commit records for a later sealing, in this order."""
    if bodies:
        await run(
            connection,
            "INSERT INTO outbox (stream, body) SELECT :stream, body FROM"
            " unnest(CAST(:bodies AS bytea[])) WITH ORDINALITY AS given (body, place) ORDER BY place",
            stream=stream,
            bodies=list(bodies),
        )


async def take_from_outbox(
    connection: AsyncConnection, stream: StreamName, max_records: int, max_bytes: int
) -> list[bytes]:
    """Take away the oldest committed records that fit one batch. The caller seals them in the same transaction."""
    taken = await rows(
        connection,
        """
        WITH oldest AS (
            SELECT id, sum(octet_length(body) + 1) OVER (ORDER BY id) AS bytes
            FROM (SELECT id, body FROM outbox WHERE stream = :stream ORDER BY id LIMIT :max_records) AS first_ones
        )
        DELETE FROM outbox USING oldest
        WHERE outbox.id = oldest.id AND oldest.bytes <= :max_bytes
        RETURNING outbox.id, outbox.body
        """,
        stream=stream,
        max_records=max_records,
        max_bytes=max_bytes,
    )
    return [body for _, body in sorted((taken_row[0], taken_row[1]) for taken_row in taken)]


async def store_sealed(
    connection: AsyncConnection,
    stream: StreamName,
    batch: StoredBatch,
    first_record: int,
    raw_bytes: int,
    sealed_at: datetime,
    content: bytes | None,
) -> None:
    """Store a batch and move the head of the chain, in the caller's transaction."""
    await run(
        connection,
        """
        INSERT INTO sealed_batches
            (stream, epoch, sequence, first_record, records, raw_bytes, hash, manifest, signature, payload, sealed_at)
        VALUES (:stream, :epoch, :sequence, :first_record, :records, :raw_bytes, :hash, :manifest, :signature,
                :payload, :sealed_at)
        """,
        stream=stream,
        epoch=batch.epoch,
        sequence=batch.sequence,
        first_record=first_record,
        records=batch.records,
        raw_bytes=raw_bytes,
        hash=batch.hash,
        manifest=batch.manifest,
        signature=batch.signature,
        payload=batch.payload,
        sealed_at=sealed_at,
    )
    await run(
        connection,
        "UPDATE outgoing_streams SET sequence = :sequence, record = :record, hash = :hash,"
        " content = coalesce(:content, content) WHERE stream = :stream",
        stream=stream,
        sequence=batch.sequence,
        record=first_record + batch.records - 1,
        hash=batch.hash,
        content=content,
    )


async def batch_after(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> StoredBatch | None:
    """The sealed batch that follows ``sequence``."""
    found = await row(
        connection,
        "SELECT epoch, sequence, records, hash, manifest, signature, payload FROM sealed_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence + 1,
    )
    return StoredBatch(*found) if found else None


async def hash_at(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
    """The hash of one of our sealed batches."""
    found: bytes | None = await value(
        connection,
        "SELECT hash FROM sealed_batches WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )
    return found


async def mark_sent(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> None:
    """Note the first time that a batch went out."""
    await run(
        connection,
        "UPDATE sealed_batches SET sent_at = now() WHERE stream = :stream AND epoch = :epoch"
        " AND sequence = :sequence AND sent_at IS NULL",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
    )


async def mark_delivered(
    connection: AsyncConnection, stream: StreamName, epoch: int, received: int, applied: int, quarantined: int
) -> None:
    """Take over a verified receipt: everything up to ``received`` is stored on the other side."""
    await run(
        connection,
        "UPDATE sealed_batches SET delivered_at = now(), sent_at = coalesce(sent_at, now()) WHERE stream = :stream"
        " AND epoch = :epoch AND sequence <= :received AND delivered_at IS NULL",
        stream=stream,
        epoch=epoch,
        received=received,
    )
    await run(
        connection,
        "UPDATE outgoing_streams SET delivered = greatest(delivered, :received), applied = greatest(applied, :applied),"
        " quarantined = :quarantined, receipt_at = now() WHERE stream = :stream AND epoch = :epoch",
        stream=stream,
        epoch=epoch,
        received=received,
        applied=applied,
        quarantined=quarantined,
    )


async def note_delivering_run(connection: AsyncConnection, stream: StreamName, run_name: str) -> None:
    """Which run delivers this stream: others tell it that there is more, and begin none of their own."""
    await outgoing_stream(connection, stream)
    await run(
        connection,
        "UPDATE outgoing_streams SET delivering_run = :run_name"
        " WHERE stream = :stream AND delivering_run IS DISTINCT FROM :run_name",
        stream=stream,
        run_name=run_name,
    )


async def delivering_run(connection: AsyncConnection, stream: StreamName) -> str | None:
    """The run that delivered this stream last; it may have ended."""
    found: str | None = await value(
        connection, "SELECT delivering_run FROM outgoing_streams WHERE stream = :stream", stream=stream
    )
    return found


async def stop_outgoing(connection: AsyncConnection, stream: StreamName, reason: str) -> None:
    """Stop sending: the histories of the two sides differ and an operator must decide."""
    await run(
        connection,
        "UPDATE outgoing_streams SET stopped = :reason WHERE stream = :stream AND stopped IS NULL",
        stream=stream,
        reason=reason,
    )


async def outbox_backlog(connection: AsyncConnection, stream: StreamName) -> tuple[int, datetime | None]:
    """Records not sealed yet, and when the oldest of them was committed."""
    found = await row(
        connection,
        "SELECT count(*), min(created_at) FROM outbox WHERE stream = :stream",
        stream=stream,
    )
    assert found is not None
    return found[0], found[1]


async def undelivered_backlog(connection: AsyncConnection, stream: StreamName) -> tuple[int, int, datetime | None]:
    """Batches and records sealed and not acknowledged, and when the oldest of them was sealed."""
    found = await row(
        connection,
        "SELECT count(*), coalesce(sum(records), 0), min(sealed_at) FROM sealed_batches"
        " WHERE stream = :stream AND delivered_at IS NULL",
        stream=stream,
    )
    assert found is not None
    return found[0], found[1], found[2]
