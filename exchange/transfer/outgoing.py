"""The sender's end of a stream: the outbox, sealed batches, and the position that receipts confirm."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.wire.batch import SealedBatch
from models.foreign_text import cleaned
from models.streams import GENESIS, StreamName
from storage.database import driver, execute, lock_until_commit, notify, row, rows, value
from storage.notices import ready


@dataclass(frozen=True)
class OutgoingStream:
    """The sender's position in a stream. Numbers count from 1 within the epoch; 0 means none yet."""

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
    batch_bytes: int | None
    """Most bytes of records in one batch; None unless a proxy or the receiver has refused larger ones."""


@dataclass(frozen=True)
class StoredBatch:
    """A row of `sealed_batches`."""

    epoch: int
    sequence: int
    records: int
    raw_bytes: int
    hash: bytes
    manifest: bytes
    signature: bytes
    payload: bytes | None


_COLUMNS = (
    "stream, epoch, sequence, record, hash, content, delivered, applied, quarantined, receipt_at, stopped, batch_bytes"
)


async def outgoing_stream(connection: AsyncConnection, stream: StreamName) -> OutgoingStream:
    """The sender's position in a stream. The row is inserted at its first use."""
    found = await row(connection, f"SELECT {_COLUMNS} FROM outgoing_streams WHERE stream = :stream", stream=stream)
    if found is None:
        await execute(
            connection,
            "INSERT INTO outgoing_streams (stream, hash) VALUES (:stream, :genesis) ON CONFLICT DO NOTHING",
            stream=stream,
            genesis=GENESIS,
        )
        return await outgoing_stream(connection, stream)
    return OutgoingStream(StreamName(found.stream), *found[1:])


async def lock_sealing(connection: AsyncConnection, stream: StreamName) -> None:
    """Wait for the lock of the stream's single sealer; it is held until the transaction ends."""
    await lock_until_commit(connection, f"seal {stream}")


async def append_to_outbox(connection: AsyncConnection, stream: StreamName, bodies: Sequence[bytes]) -> None:
    """Append records, in this order, and notify the run that delivers them."""
    if bodies:
        await execute(
            connection,
            "INSERT INTO outbox (stream, body) SELECT :stream, body FROM"
            " unnest(CAST(:bodies AS bytea[])) WITH ORDINALITY AS given (body, place) ORDER BY place",
            stream=stream,
            bodies=list(bodies),
        )
        await notify(connection, ready(stream))


@dataclass(frozen=True)
class Taken:
    """Records that were taken from the outbox, in order, and the outbox number of the last one."""

    records: list[bytes]
    last: int


_TAKE = """
WITH oldest AS (
    SELECT place, sum(length + 1) OVER (ORDER BY id) AS bytes, row_number() OVER (ORDER BY id) AS nth
    FROM (SELECT ctid AS place, id, octet_length(body) AS length FROM outbox
          WHERE stream = $1 AND id > $2 AND ($5::timestamptz IS NULL OR created_at <= $5) ORDER BY id LIMIT $3)
         AS first_ones
)
DELETE FROM outbox USING oldest
WHERE outbox.ctid = oldest.place AND (oldest.nth = 1 OR oldest.bytes <=
    least($4, (SELECT batch_bytes FROM outgoing_streams WHERE stream = $1)))
RETURNING outbox.id, outbox.body
"""
"""Joins by ctid, which is safe within one statement: no vacuum moves rows that its snapshot sees."""


async def take_from_outbox(
    connection: AsyncConnection,
    stream: StreamName,
    max_records: int,
    max_bytes: int,
    after: int = 0,
    before: datetime | None = None,
) -> Taken:
    """Delete and return the oldest committed records that fit one batch: at least one, and at most ``batch_bytes`` of
    the stream. The caller seals them in the same transaction. Records of transactions begun after ``before`` stay.

    Records with numbers above ``after`` are taken first, so that PostgreSQL does not read again the rows that the
    caller has just deleted. If there are none, it starts from the beginning: numbers are assigned before the commit,
    so a lower one may have appeared since.
    """
    raw = await driver(connection)
    taken = await raw.fetch(_TAKE, stream.value, after, max_records, max_bytes, before)
    if not taken and after:
        taken = await raw.fetch(_TAKE, stream.value, 0, max_records, max_bytes, before)
    taken.sort(key=itemgetter(0))
    return Taken([body for _, body in taken], taken[-1][0] if taken else 0)


async def take_back_from_outbox(connection: AsyncConnection, stream: StreamName, bodies: Sequence[bytes]) -> int:
    """Delete exactly these records from the outbox. Returns how many there were."""
    return await execute(
        connection,
        "DELETE FROM outbox WHERE stream = :stream AND body = ANY(CAST(:bodies AS bytea[]))",
        stream=stream,
        bodies=list(bodies),
    )


async def take_results_back_from_outbox(connection: AsyncConnection, request_ids: Sequence[UUID]) -> int:
    """Delete the results of these requests from the outbox. Returns how many there were."""
    return await execute(
        connection,
        # Our own results begin with their id. A jsonb cannot hold every body: a string may have a NUL character.
        "DELETE FROM outbox WHERE stream = 'results'"
        " AND substring(encode(substring(body FOR 100), 'escape') FROM :form) = ANY(CAST(:request_ids AS text[]))",
        form='^\\{\\s*"request_id"\\s*:\\s*"([0-9a-f-]{36})"',
        request_ids=[str(each) for each in request_ids],
    )


async def store_sealed(connection: AsyncConnection, sealed: SealedBatch, content: bytes | None) -> None:
    """Store a batch and move the head of the chain. ``content``: SHA-256 of the snapshot that it belongs to."""
    manifest = sealed.manifest
    await execute(
        connection,
        """
        WITH head AS (
            UPDATE outgoing_streams SET sequence = :sequence, record = :last_record, hash = :hash,
                content = coalesce(:content, content)
            WHERE stream = :stream)
        INSERT INTO sealed_batches
            (stream, epoch, sequence, first_record, records, raw_bytes, hash, manifest, signature, payload, sealed_at)
        VALUES (:stream, :epoch, :sequence, :first_record, :records, :raw_bytes, :hash, :manifest, :signature,
                :payload, :sealed_at)
        """,
        stream=manifest.stream,
        epoch=manifest.epoch,
        sequence=manifest.sequence,
        first_record=manifest.first_record,
        records=manifest.count,
        raw_bytes=manifest.raw_bytes,
        hash=sealed.hash,
        manifest=sealed.manifest_bytes,
        signature=sealed.signature,
        payload=sealed.payload,
        sealed_at=manifest.sealed_at,
        last_record=manifest.last_record,
        content=content,
    )


async def batch_after(connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int) -> StoredBatch | None:
    """The sealed batch after number ``sequence``."""
    found = await row(
        connection,
        "SELECT epoch, sequence, records, raw_bytes, hash, manifest, signature, payload FROM sealed_batches"
        " WHERE stream = :stream AND epoch = :epoch AND sequence = :sequence",
        stream=stream,
        epoch=epoch,
        sequence=sequence + 1,
    )
    return StoredBatch(*found) if found else None


async def batches_after(
    connection: AsyncConnection,
    stream: StreamName,
    epoch: int,
    sequence: int,
    most: int,
    records: int,
    size: int,
    raw_bytes: int,
) -> list[StoredBatch]:
    """The sealed batches after number ``sequence``: at most ``most``, with ``records`` records, ``size`` bytes on the
    wire and ``raw_bytes`` bytes of records in total. The first one is included even if it is larger.
    """
    found = await rows(
        connection,
        """
        WITH following AS (
            SELECT sequence, row_number() OVER in_order AS place, sum(records) OVER in_order AS records,
                   sum(raw_bytes) OVER in_order AS raw_bytes,
                   sum(coalesce(octet_length(payload), 0) + octet_length(manifest) + 256) OVER in_order AS size
            FROM (SELECT * FROM sealed_batches WHERE stream = :stream AND epoch = :epoch AND sequence > :sequence
                  ORDER BY sequence LIMIT :most) AS next_ones
            WINDOW in_order AS (ORDER BY sequence)
        )
        SELECT epoch, sequence, sealed_batches.records, sealed_batches.raw_bytes, hash, manifest, signature, payload
        FROM sealed_batches JOIN following USING (sequence)
        WHERE stream = :stream AND epoch = :epoch
          AND (place = 1 OR (following.records <= :records AND following.size <= :size
                             AND following.raw_bytes <= :raw_bytes))
        ORDER BY sequence
        """,
        stream=stream,
        epoch=epoch,
        sequence=sequence,
        most=most,
        records=records,
        size=size,
        raw_bytes=raw_bytes,
    )
    return [StoredBatch(*each) for each in found]


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


async def mark_sent(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, last: int | None = None
) -> None:
    """Record when a batch, or all from it to ``last``, was sent for the first time."""
    await execute(
        connection,
        "UPDATE sealed_batches SET sent_at = now() WHERE stream = :stream AND epoch = :epoch"
        " AND sequence BETWEEN :sequence AND :last AND sent_at IS NULL",
        stream=stream,
        epoch=epoch,
        sequence=sequence,
        last=sequence if last is None else last,
    )


async def mark_delivered(
    connection: AsyncConnection,
    stream: StreamName,
    epoch: int,
    received: int,
    applied: int,
    quarantined: int,
    issued_at: datetime,
) -> None:
    """Apply a verified receipt: all batches up to ``received`` are stored on the other side.

    A receipt that is not newer than the last one is no sign of life, and its quarantine count is out of date.
    """
    await execute(
        connection,
        "UPDATE sealed_batches SET delivered_at = now(), sent_at = coalesce(sent_at, now()) WHERE stream = :stream"
        " AND epoch = :epoch AND sequence <= :received AND delivered_at IS NULL AND voided_at IS NULL",
        stream=stream,
        epoch=epoch,
        received=received,
    )
    await execute(
        connection,
        """
        UPDATE outgoing_streams SET delivered = greatest(delivered, :received), applied = greatest(applied, :applied),
            quarantined = CASE WHEN receipt_issued_at >= :issued_at THEN quarantined ELSE :quarantined END,
            receipt_at = CASE WHEN receipt_issued_at >= :issued_at THEN receipt_at ELSE now() END,
            receipt_issued_at = greatest(receipt_issued_at, :issued_at)
        WHERE stream = :stream AND epoch = :epoch
        """,
        stream=stream,
        epoch=epoch,
        received=received,
        applied=applied,
        quarantined=quarantined,
        issued_at=issued_at,
    )


async def stop_outgoing(connection: AsyncConnection, stream: StreamName, reason: str, epoch: int | None = None) -> None:
    """Stop sending: the histories of the two sides differ and an operator must decide.

    With ``epoch``, only that epoch is stopped, not a later one.
    """
    await execute(
        connection,
        "UPDATE outgoing_streams SET stopped = :reason WHERE stream = :stream AND stopped IS NULL"
        " AND epoch = coalesce(CAST(:epoch AS integer), epoch)",
        stream=stream,
        reason=cleaned(reason),
        epoch=epoch,
    )


async def seal_less(connection: AsyncConnection, stream: StreamName, batch_bytes: int) -> None:
    """Seal batches of at most ``batch_bytes`` bytes of records from now on."""
    await execute(
        connection,
        "UPDATE outgoing_streams SET batch_bytes = least(batch_bytes, :batch_bytes) WHERE stream = :stream",
        stream=stream,
        batch_bytes=batch_bytes,
    )


async def seal_as_before(connection: AsyncConnection, stream: StreamName, delivered_bytes: int) -> None:
    """Lift the limit of `seal_less` if a batch above it was delivered."""
    await execute(
        connection,
        "UPDATE outgoing_streams SET batch_bytes = NULL WHERE stream = :stream AND batch_bytes < :delivered_bytes",
        stream=stream,
        delivered_bytes=delivered_bytes,
    )


async def outbox_backlog(connection: AsyncConnection, stream: StreamName) -> tuple[int, datetime | None]:
    """How many records are not sealed yet, and when the oldest was committed."""
    found = await row(
        connection,
        "SELECT count(*), min(created_at) FROM outbox WHERE stream = :stream",
        stream=stream,
    )
    assert found is not None
    return found[0], found[1]


async def undelivered_backlog(connection: AsyncConnection, stream: StreamName) -> tuple[int, int, datetime | None]:
    """Batches and records that are sealed and not acknowledged, and when the oldest was sealed."""
    found = await row(
        connection,
        "SELECT count(*), coalesce(sum(records), 0), min(sealed_at) FROM sealed_batches"
        " WHERE stream = :stream AND delivered_at IS NULL AND voided_at IS NULL",
        stream=stream,
    )
    assert found is not None
    return found[0], found[1], found[2]
