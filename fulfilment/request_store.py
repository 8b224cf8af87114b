"""The request network's requests and their groups: stored, listed, cancelled, expired, fulfilled."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.incoming import lock_applying
from models.errors import NotFound
from models.outcomes import GroupState
from models.streams import BatchRef, StreamName
from storage.database import AnyRow, execute, notify, row, rows
from storage.notices import FINISHED


@dataclass(frozen=True)
class NewRequest:
    """A validated request before its commit. ``params`` is JSON."""

    request_id: UUID
    user_id: UUID
    type: str
    name: str | None
    priority: int
    params: bytes
    callback_url: str | None
    submitted_at: datetime
    deadline_at: datetime | None


@dataclass(frozen=True)
class IdempotencyKey:
    """A user's idempotency key, the SHA-256 of the body that it was used with, and the ids of the requests."""

    user_id: UUID
    key: str
    fingerprint: bytes
    request_ids: tuple[UUID, ...]


async def store_submitted(connection: AsyncConnection, group: BatchRef, requests: Sequence[NewRequest]) -> None:
    """Store the requests of the batch ``group``, in the transaction that sealed it. Its workflow starts later."""
    await execute(
        connection,
        """
        WITH noted AS (INSERT INTO request_groups (epoch, sequence, size)
                       VALUES (:epoch, :sequence, :size))
        INSERT INTO requests (request_id, user_id, type, name, priority, params, callback_url, submitted_at,
                              deadline_at, epoch, sequence)
        SELECT *, :epoch, :sequence FROM unnest(
            CAST(:request_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:types AS text[]), CAST(:names AS text[]),
            CAST(:priorities AS smallint[]), CAST(:params AS bytea[]), CAST(:callbacks AS text[]),
            CAST(:submitted AS timestamptz[]), CAST(:deadlines AS timestamptz[]))
        """,
        epoch=group.epoch,
        sequence=group.sequence,
        size=len(requests),
        request_ids=[request.request_id for request in requests],
        user_ids=[request.user_id for request in requests],
        types=[request.type for request in requests],
        names=[request.name for request in requests],
        priorities=[request.priority for request in requests],
        params=[request.params for request in requests],
        callbacks=[request.callback_url for request in requests],
        submitted=[request.submitted_at for request in requests],
        deadlines=[request.deadline_at for request in requests],
    )


async def store_group(connection: AsyncConnection, group: BatchRef, size: int) -> None:
    """Store a group for which no workflow has been started."""
    await execute(
        connection,
        "INSERT INTO request_groups (epoch, sequence, size) VALUES (:epoch, :sequence, :size)",
        epoch=group.epoch,
        sequence=group.sequence,
        size=size,
    )


async def missing_requests(connection: AsyncConnection, request_ids: Sequence[UUID]) -> set[UUID]:
    """The ids for which no request is stored here."""
    found = await rows(
        connection,
        "SELECT id FROM unnest(CAST(:request_ids AS uuid[])) AS given (id)"
        " WHERE NOT EXISTS (SELECT FROM requests WHERE request_id = id)",
        request_ids=list(request_ids),
    )
    return {request_id for (request_id,) in found}


async def find_idempotency_keys(
    connection: AsyncConnection, keys: Sequence[tuple[UUID, str]]
) -> dict[tuple[UUID, str], IdempotencyKey]:
    """The keys among these that have been used, by user and key."""
    found = await rows(
        connection,
        "SELECT user_id, key, fingerprint, request_ids FROM idempotency_keys JOIN"
        " unnest(CAST(:user_ids AS uuid[]), CAST(:keys AS text[])) AS wanted (user_id, key) USING (user_id, key)",
        user_ids=[user_id for user_id, _ in keys],
        keys=[key for _, key in keys],
    )
    return {
        (user_id, key): IdempotencyKey(user_id, key, fingerprint, tuple(request_ids))
        for user_id, key, fingerprint, request_ids in found
    }


async def store_idempotency_keys(connection: AsyncConnection, keys: Sequence[IdempotencyKey]) -> None:
    """Remember what each key was used for, in one statement: a group may have hundreds of them."""
    if keys:
        await execute(
            connection,
            """
            INSERT INTO idempotency_keys (user_id, key, fingerprint, request_ids)
            SELECT user_id, key, fingerprint, CAST(string_to_array(ids, ',') AS uuid[])
            FROM unnest(CAST(:user_ids AS uuid[]), CAST(:keys AS text[]), CAST(:fingerprints AS bytea[]),
                        CAST(:ids AS text[])) AS given (user_id, key, fingerprint, ids)
            """,
            user_ids=[key.user_id for key in keys],
            keys=[key.key for key in keys],
            fingerprints=[key.fingerprint for key in keys],
            ids=[",".join(map(str, key.request_ids)) for key in keys],
        )


OF_GROUPS = "requests.epoch = :epoch AND requests.sequence BETWEEN :first AND :last"
"""Selects the requests of a range of groups. A group is a batch of the requests stream."""


def _of(groups: BatchRef) -> dict[str, int]:
    """The parameters of `OF_GROUPS`."""
    return {"epoch": groups.epoch, "first": groups.begin, "last": groups.sequence}


_STATUS = """
    CASE WHEN requests.closed IS NOT NULL THEN requests.closed
         WHEN results.status IS NOT NULL THEN results.status
         WHEN sealed_batches.delivered_at IS NOT NULL THEN 'executing'
         WHEN sealed_batches.sent_at IS NOT NULL THEN 'sent'
         ELSE 'queued' END
"""
_REQUEST = f"""
    SELECT requests.request_id, requests.type, requests.name, requests.priority, requests.params, requests.callback_url,
           requests.submitted_at, requests.deadline_at, {_STATUS} AS status,
           coalesce(requests.closed_at, results.received_at) AS finished_at,
           requests.callback_at, requests.callback_lost
    FROM requests
    LEFT JOIN results USING (request_id)
    LEFT JOIN sealed_batches ON sealed_batches.stream = 'requests'
         AND sealed_batches.epoch = requests.epoch AND sealed_batches.sequence = requests.sequence
"""


async def find_request(connection: AsyncConnection, user_id: UUID, request_id: UUID) -> AnyRow | None:
    """One request of this user, with its status."""
    return await row(
        connection,
        f"{_REQUEST} WHERE requests.request_id = :request_id AND requests.user_id = :user_id",
        request_id=request_id,
        user_id=user_id,
    )


async def list_requests(
    connection: AsyncConnection,
    user_id: UUID,
    before: UUID | None,
    status: str | None,
    type_name: str | None,
    limit: int,
) -> Sequence[AnyRow]:
    """Requests of this user, newest first, older than ``before``."""
    return await rows(
        connection,
        f"""
        {_REQUEST}
        WHERE requests.user_id = :user_id
          AND (CAST(:before AS uuid) IS NULL OR requests.request_id < CAST(:before AS uuid))
          AND (CAST(:type_name AS text) IS NULL OR requests.type = CAST(:type_name AS text))
          AND (CAST(:status AS text) IS NULL OR {_STATUS} = CAST(:status AS text))
        ORDER BY requests.request_id DESC LIMIT :limit
        """,
        user_id=user_id,
        before=before,
        status=status,
        type_name=type_name,
        limit=limit,
    )


async def cancel_request(connection: AsyncConnection, user_id: UUID, request_id: UUID) -> bool:
    """Close a request. Return False if it has ended, or is not this user's."""
    return bool(
        await close_requests(
            connection,
            "cancelled",
            "requests.request_id = :request_id AND requests.user_id = :user_id",
            request_id=request_id,
            user_id=user_id,
        )
    )


async def expire_overdue(connection: AsyncConnection, groups: BatchRef) -> int:
    """Close the requests of these groups whose deadline has passed without a result. Return their number."""
    return await close_requests(connection, "expired", f"{OF_GROUPS} AND requests.deadline_at <= now()", **_of(groups))


async def close_requests(connection: AsyncConnection, outcome: str, condition: str, **parameters: Any) -> int:
    """Close the open requests that meet ``condition``, a constant SQL expression, and wake waiting callers.

    Holds the lock of applying, so that a request is either closed or gets a result, never both.
    """
    await lock_applying(connection, StreamName.RESULTS)
    closed = await execute(
        connection,
        f"UPDATE requests SET closed = :outcome, closed_at = now() WHERE {condition} AND closed IS NULL"
        " AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)",
        outcome=outcome,
        **parameters,
    )
    if closed:
        await notify(connection, FINISHED)
    return closed


def unknown_request(request_id: UUID) -> NotFound:
    """The error for a request that does not exist or belongs to another user; callers cannot tell which."""
    return NotFound(f"You have no request {request_id}")


async def group_state(connection: AsyncConnection, groups: BatchRef) -> GroupState:
    """Counts of what is still open in these groups.

    OFFSET 0 makes PostgreSQL look each result up by its key. With outdated statistics it would join the whole tables.
    """
    found = await row(
        connection,
        f"""
        WITH members AS (
            SELECT deadline_at, callback_url IS NOT NULL AND callback_at IS NULL AS wants_callback,
                   closed IS NULL AND NOT EXISTS (
                       SELECT FROM results WHERE results.request_id = requests.request_id OFFSET 0) AS outstanding
            FROM requests WHERE {OF_GROUPS})
        SELECT count(*), count(*) FILTER (WHERE outstanding),
               extract(epoch FROM min(deadline_at) FILTER (WHERE outstanding) - now())::double precision,
               count(*) FILTER (WHERE wants_callback)
        FROM members
        """,
        **_of(groups),
    )
    assert found is not None
    return GroupState(size=found[0], outstanding=found[1], next_deadline_in=found[2], callbacks_wanted=found[3])


async def unattended_groups(
    connection: AsyncConnection, never_seen: float, not_seen: float, limit: int = 1000
) -> list[BatchRef]:
    """Unfulfilled groups without a workflow, oldest first.

    A group that no workflow has seen counts ``never_seen`` seconds after its submission: Temporal was away. Any other
    counts ``not_seen`` seconds after it was last seen: its run was lost.
    """
    found = await rows(
        connection,
        """
        SELECT epoch, sequence, size FROM request_groups WHERE fulfilled_at IS NULL
          AND (CASE WHEN seen_at IS NULL THEN submitted_at < now() - make_interval(secs => :never_seen)
                    ELSE seen_at < now() - make_interval(secs => :not_seen) END)
        ORDER BY epoch, sequence LIMIT :limit
        """,
        never_seen=never_seen,
        not_seen=not_seen,
        limit=limit,
    )
    return [BatchRef(stream=StreamName.REQUESTS, epoch=item[0], sequence=item[1], records=item[2]) for item in found]


async def mark_groups_seen(connection: AsyncConnection, groups: BatchRef) -> None:
    """Record that a workflow looks after these groups."""
    await execute(
        connection,
        "UPDATE request_groups SET seen_at = now() WHERE epoch = :epoch AND sequence BETWEEN :first AND :last"
        " AND fulfilled_at IS NULL",
        **_of(groups),
    )


async def mark_groups_fulfilled(connection: AsyncConnection, groups: BatchRef) -> None:
    """Record that nothing is open in these groups."""
    await execute(
        connection,
        "UPDATE request_groups SET seen_at = now(), fulfilled_at = now()"
        " WHERE epoch = :epoch AND sequence BETWEEN :first AND :last AND fulfilled_at IS NULL",
        **_of(groups),
    )
