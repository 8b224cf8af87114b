"""The response network's requests, cancellations and results. A request has at most one result."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.requests import RequestRecord
from models.streams import BatchRef
from storage.database import AnyRow, execute, row, rows


@dataclass(frozen=True)
class WaitingRequest:
    """A request without a result."""

    request_id: UUID
    type: str
    params: bytes
    deadline_passed: bool
    cancelled: bool


@dataclass(frozen=True)
class FinishedResult:
    """A result as it is stored. ``body`` is the record that crosses the link."""

    request_id: UUID
    type: str
    status: str
    reason: str | None
    returned: int
    total: int | None
    duration_ms: float | None
    body: bytes


async def store_requests(
    connection: AsyncConnection, batch: BatchRef, requests: Sequence[tuple[RequestRecord, bytes]]
) -> set[UUID]:
    """Store the requests of a batch, each with its parameters as JSON. Return the ids of the new ones.

    A request whose id is already stored is not changed.
    """
    if not requests:
        return set()
    new = await rows(
        connection,
        """
        INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, deadline_at,
                              epoch, sequence)
        SELECT *, :epoch, :sequence FROM unnest(
            CAST(:request_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:types AS text[]),
            CAST(:priorities AS smallint[]), CAST(:params AS bytea[]), CAST(:submitted AS timestamptz[]),
            CAST(:deadlines AS timestamptz[]))
        ON CONFLICT (request_id) DO NOTHING
        RETURNING request_id
        """,
        epoch=batch.epoch,
        sequence=batch.sequence,
        **_columns(requests),
    )
    return {request_id for (request_id,) in new}


async def differing_requests(connection: AsyncConnection, requests: Sequence[tuple[RequestRecord, bytes]]) -> set[UUID]:
    """The ids under which a different request is stored. An identical one is not returned: after a new epoch the sender
    sends some requests again.
    """
    if not requests:
        return set()
    found = await rows(
        connection,
        """
        SELECT given.request_id FROM unnest(
            CAST(:request_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:types AS text[]),
            CAST(:priorities AS smallint[]), CAST(:params AS bytea[]), CAST(:submitted AS timestamptz[]),
            CAST(:deadlines AS timestamptz[]))
            AS given (request_id, user_id, type, priority, params, submitted_at, deadline_at)
        JOIN requests USING (request_id)
        WHERE (given.user_id, given.type, given.priority, given.params, given.submitted_at, given.deadline_at)
              IS DISTINCT FROM (requests.user_id, requests.type, requests.priority, requests.params,
                                requests.submitted_at, requests.deadline_at)
        """,
        **_columns(requests),
    )
    return {request_id for (request_id,) in found}


def _columns(requests: Sequence[tuple[RequestRecord, bytes]]) -> dict[str, list[object]]:
    """Requests as the arrays that ``unnest`` takes."""
    return {
        "request_ids": [record.request_id for record, _ in requests],
        "user_ids": [record.user_id for record, _ in requests],
        "types": [record.type for record, _ in requests],
        "priorities": [record.priority for record, _ in requests],
        "params": [params for _, params in requests],
        "submitted": [record.submitted_at for record, _ in requests],
        "deadlines": [record.deadline_at for record, _ in requests],
    }


async def store_cancellations(connection: AsyncConnection, cancellations: Sequence[tuple[UUID, datetime]]) -> None:
    """Store that these requests were cancelled. A request that has a result keeps it."""
    if cancellations:
        await execute(
            connection,
            "INSERT INTO cancellations (request_id, cancelled_at)"
            " SELECT * FROM unnest(CAST(:request_ids AS uuid[]), CAST(:moments AS timestamptz[]))"
            " ON CONFLICT DO NOTHING",
            request_ids=[request_id for request_id, _ in cancellations],
            moments=[moment for _, moment in cancellations],
        )


async def waiting_requests(connection: AsyncConnection, batch: BatchRef) -> list[WaitingRequest]:
    """The requests of these batches that have no result, highest priority first."""
    found = await rows(
        connection,
        """
        SELECT request_id, requests.type, params, coalesce(deadline_at < now(), false),
               EXISTS (SELECT FROM cancellations WHERE cancellations.request_id = requests.request_id)
        FROM requests
        WHERE epoch = :epoch AND sequence BETWEEN :first AND :last
          AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
        ORDER BY priority DESC, request_id
        """,
        epoch=batch.epoch,
        first=batch.begin,
        last=batch.sequence,
    )
    return [WaitingRequest(*item) for item in found]


async def waiting_requests_closed(connection: AsyncConnection, batch: BatchRef) -> list[tuple[UUID, bool]]:
    """The requests of these batches that were cancelled (True), or whose deadline has passed (False), and that have no
    result.
    """
    found = await rows(
        connection,
        """
        SELECT requests.request_id, cancellations.request_id IS NOT NULL
        FROM requests LEFT JOIN cancellations ON cancellations.request_id = requests.request_id
        WHERE epoch = :epoch AND sequence BETWEEN :first AND :last
          AND (cancellations.request_id IS NOT NULL OR deadline_at < now())
          AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
        """,
        epoch=batch.epoch,
        first=batch.begin,
        last=batch.sequence,
    )
    return [(request_id, cancelled) for request_id, cancelled in found]


async def store_results(connection: AsyncConnection, results: Sequence[FinishedResult]) -> list[FinishedResult]:
    """Store results. Return the new ones in order, for the outbox.

    A request never gets two results: the first one stored stays.
    """
    if not results:
        return []
    in_order = sorted(results, key=lambda result: result.request_id)  # two runs of one batch must not deadlock
    added = await rows(
        connection,
        """
        INSERT INTO results (request_id, type, status, reason, returned, total, duration_ms, body)
        SELECT * FROM unnest(
            CAST(:request_ids AS uuid[]), CAST(:types AS text[]), CAST(:statuses AS text[]), CAST(:reasons AS text[]),
            CAST(:returned AS integer[]), CAST(:totals AS bigint[]), CAST(:durations AS double precision[]),
            CAST(:bodies AS bytea[]))
        ON CONFLICT (request_id) DO NOTHING
        RETURNING request_id
        """,
        request_ids=[result.request_id for result in in_order],
        types=[result.type for result in in_order],
        statuses=[result.status for result in in_order],
        reasons=[result.reason for result in in_order],
        returned=[result.returned for result in in_order],
        totals=[result.total for result in in_order],
        durations=[result.duration_ms for result in in_order],
        bodies=[result.body for result in in_order],
    )
    new = {request_id for (request_id,) in added}
    return [result for result in results if result.request_id in new]


async def execution_counts(connection: AsyncConnection, batch: BatchRef) -> dict[str, int]:
    """Results of these batches by status."""
    found = await rows(
        connection,
        "SELECT status, count(*) FROM results JOIN requests USING (request_id)"
        " WHERE epoch = :epoch AND sequence BETWEEN :first AND :last GROUP BY status",
        epoch=batch.epoch,
        first=batch.begin,
        last=batch.sequence,
    )
    return {status: count for status, count in found}


async def list_results(
    connection: AsyncConnection, before: UUID | None, status: str | None, type_name: str | None, limit: int
) -> Sequence[AnyRow]:
    """Results without their bodies, newest request first, older than ``before``."""
    return await rows(
        connection,
        """
        SELECT request_id, type, status, reason, returned, total, duration_ms, created_at FROM results
        WHERE (CAST(:before AS uuid) IS NULL OR request_id < CAST(:before AS uuid))
          AND (CAST(:status AS text) IS NULL OR status = CAST(:status AS text))
          AND (CAST(:type_name AS text) IS NULL OR type = CAST(:type_name AS text))
        ORDER BY request_id DESC LIMIT :limit
        """,
        before=before,
        status=status,
        type_name=type_name,
        limit=limit,
    )


async def find_result_body(connection: AsyncConnection, request_id: UUID) -> bytes | None:
    """The stored bytes of a result."""
    found = await row(connection, "SELECT body FROM results WHERE request_id = :request_id", request_id=request_id)
    return found[0] if found else None
