"""SQL of repairing: rows from their batch, and batches from their original bytes. An existing row is overwritten."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.wire.batch import SealedBatch
from models.requests import RequestRecord
from models.streams import BatchRef, StreamName
from storage.database import execute, value


async def put_arrived_result(
    connection: AsyncConnection, request_id: UUID, status: str, body: bytes, batch: BatchRef
) -> UUID | None:
    """Put a result into the request network. Returns its owner, or None if its request is not here."""
    owner: UUID | None = await value(
        connection,
        """
        INSERT INTO results (request_id, user_id, status, body, epoch, sequence)
        SELECT request_id, user_id, :status, :body, :epoch, :sequence
        FROM requests WHERE request_id = :request_id
        ON CONFLICT (request_id) DO UPDATE SET user_id = excluded.user_id, status = excluded.status,
            body = excluded.body, epoch = excluded.epoch, sequence = excluded.sequence
        RETURNING user_id
        """,
        request_id=request_id,
        status=status,
        body=body,
        epoch=batch.epoch,
        sequence=batch.sequence,
    )
    return None if owner is None else UUID(str(owner))


async def put_executed_result(connection: AsyncConnection, request_id: UUID, result: Any, body: bytes) -> int:
    """Put a result into the response network. Columns that do not cross are read from the result and its request."""
    return await execute(
        connection,
        """
        INSERT INTO results (request_id, type, status, reason, returned, total, duration_ms, body)
        VALUES (:request_id, coalesce((SELECT type FROM requests WHERE request_id = :request_id), ''), :status, :reason,
                :returned, :total, :duration_ms, :body)
        ON CONFLICT (request_id) DO UPDATE SET status = excluded.status, reason = excluded.reason,
            returned = excluded.returned, total = excluded.total, duration_ms = excluded.duration_ms,
            body = excluded.body
        """,
        request_id=request_id,
        status=result["status"],
        reason=(result.get("error") or {}).get("reason"),
        returned=result.get("returned", 0),
        total=result.get("total"),
        duration_ms=result.get("duration_ms"),
        body=body,
    )


async def put_request(connection: AsyncConnection, record: RequestRecord, params: bytes, batch: BatchRef) -> int:
    """Put a request into either network. Columns that never cross (name, callback) keep their values."""
    return await execute(
        connection,
        """
        INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, deadline_at,
                              epoch, sequence)
        VALUES (:request_id, :user_id, :type, :priority, :params, :submitted_at, :deadline_at,
                :epoch, :sequence)
        ON CONFLICT (request_id) DO UPDATE SET user_id = excluded.user_id, type = excluded.type,
            priority = excluded.priority, params = excluded.params, submitted_at = excluded.submitted_at,
            deadline_at = excluded.deadline_at, epoch = excluded.epoch,
            sequence = excluded.sequence
        """,
        request_id=record.request_id,
        user_id=record.user_id,
        type=record.type,
        priority=record.priority,
        params=params,
        submitted_at=record.submitted_at,
        deadline_at=record.deadline_at,
        epoch=batch.epoch,
        sequence=batch.sequence,
    )


async def put_cancellation(connection: AsyncConnection, request_id: UUID, cancelled_at: datetime) -> int:
    """Put a cancellation into the response network."""
    return await execute(
        connection,
        "INSERT INTO cancellations (request_id, cancelled_at) VALUES (:request_id, :cancelled_at)"
        " ON CONFLICT DO NOTHING",
        request_id=request_id,
        cancelled_at=cancelled_at,
    )


async def put_snapshot(
    connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, sealed_at: datetime, records: bytes
) -> None:
    """Put the snapshot in force."""
    await execute(
        connection,
        """
        INSERT INTO snapshots (stream, epoch, sequence, sealed_at, records)
        VALUES (:stream, :epoch, :sequence, :sealed_at, :records)
        ON CONFLICT (stream) DO UPDATE SET epoch = excluded.epoch, sequence = excluded.sequence,
            sealed_at = excluded.sealed_at, records = excluded.records, applied_at = now()
        """,
        stream=stream,
        epoch=epoch,
        sequence=sequence,
        sealed_at=sealed_at,
        records=records,
    )


async def without_result(connection: AsyncConnection, ids: Sequence[UUID]) -> int:
    """How many of these requests of the response network have no result."""
    found: int = await value(
        connection,
        "SELECT count(*) FROM requests WHERE request_id = ANY(CAST(:ids AS uuid[]))"
        " AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)",
        ids=list(ids),
    )
    return found


async def restore_received(connection: AsyncConnection, sealed: SealedBatch) -> None:
    """Put back a received batch. A missing one is marked as applied, since its rows are checked by themselves."""
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
        **_parameters(sealed),
    )


async def restore_sealed(connection: AsyncConnection, sealed: SealedBatch) -> None:
    """Put back a sealed batch. It comes from its receiver, so it is marked as delivered."""
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
        **_parameters(sealed),
        raw_bytes=sealed.manifest.raw_bytes,
        sealed_at=sealed.manifest.sealed_at,
    )


def _parameters(sealed: SealedBatch) -> dict[str, object]:
    return {
        "stream": sealed.manifest.stream,
        "epoch": sealed.manifest.epoch,
        "sequence": sealed.manifest.sequence,
        "first_record": sealed.manifest.first_record,
        "records": sealed.manifest.count,
        "hash": sealed.hash,
        "manifest": sealed.manifest_bytes,
        "signature": sealed.signature,
        "payload": sealed.payload,
    }


async def seal_snapshot_anew(connection: AsyncConnection, stream: StreamName) -> None:
    """Mark the newest snapshot as changed, so that the next export seals it again."""
    await execute(
        connection,
        "UPDATE outgoing_streams SET content = :nothing WHERE stream = :stream",
        stream=stream,
        nothing=bytes(32),
    )
