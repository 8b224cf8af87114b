"""Putting a batch back as it was, at its receiver or at its sender."""

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName
from storage.database import execute
from storage.verification import KeptBatch


async def restore_received(connection: AsyncConnection, stream: StreamName, epoch: int, batch: KeptBatch) -> None:
    """A received batch. One that was gone counts as applied: its rows are checked by themselves."""
    await execute(
        connection,
        """
        INSERT INTO received_batches
            (stream, epoch, sequence, first_record, records, hash, manifest, signature, payload, applied_at)
        VALUES (:stream, :epoch, :sequence, :first_record, :records, :hash, :manifest, :signature, :payload, now())
        ON CONFLICT (stream, epoch, sequence) DO UPDATE SET first_record = excluded.first_record,
            records = excluded.records, hash = excluded.hash, manifest = excluded.manifest,
            signature = excluded.signature, payload = excluded.payload
        """,
        **_parameters(stream, epoch, batch),
    )


async def restore_sealed(
    connection: AsyncConnection, stream: StreamName, epoch: int, batch: KeptBatch, raw_bytes: int, sealed_at: datetime
) -> None:
    """A sealed batch, brought back by its receiver: so it was delivered."""
    await execute(
        connection,
        """
        INSERT INTO sealed_batches
            (stream, epoch, sequence, first_record, records, raw_bytes, hash, manifest, signature, payload, sealed_at,
             sent_at, delivered_at)
        VALUES (:stream, :epoch, :sequence, :first_record, :records, :raw_bytes, :hash, :manifest, :signature,
                :payload, :sealed_at, now(), now())
        ON CONFLICT (stream, epoch, sequence) DO UPDATE SET first_record = excluded.first_record,
            records = excluded.records, raw_bytes = excluded.raw_bytes, hash = excluded.hash,
            manifest = excluded.manifest, signature = excluded.signature, payload = excluded.payload,
            sealed_at = excluded.sealed_at
        """,
        **_parameters(stream, epoch, batch),
        raw_bytes=raw_bytes,
        sealed_at=sealed_at,
    )


def _parameters(stream: StreamName, epoch: int, batch: KeptBatch) -> dict[str, object]:
    return {
        "stream": stream,
        "epoch": epoch,
        "sequence": batch.sequence,
        "first_record": batch.first_record,
        "records": batch.records,
        "hash": batch.hash,
        "manifest": batch.manifest,
        "signature": batch.signature,
        "payload": batch.payload,
    }


async def seal_snapshot_anew(connection: AsyncConnection, stream: StreamName) -> int:
    """Have the newest snapshot count as changed: the next export seals it again, and until then it agrees with none."""
    return await execute(
        connection,
        "UPDATE outgoing_streams SET content = :nothing WHERE stream = :stream",
        stream=stream,
        nothing=bytes(32),
    )
