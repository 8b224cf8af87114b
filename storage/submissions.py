"""The request network's requests: submitted in groups, listed by their owners, closed without a result when need be."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from models.outcomes import FIRST_LOOK_SECONDS, GroupState
from models.streams import BatchRef, StreamName
from storage.database import AnyRow, execute, notify, row, rows, value
from storage.incoming import lock_applying
from storage.partitions import stream_of


@dataclass(frozen=True)
class NewRequest:
    """A request that has been checked and is about to be committed; ``params`` as JSON."""

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
    """Who used which key for what: the fingerprint is the SHA-256 of the body."""

    user_id: UUID
    key: str
    fingerprint: bytes
    request_ids: tuple[UUID, ...]


@dataclass(frozen=True)
class FulfilledGroup:
    """A group with nothing outstanding; the one whose workflow sees to it; and whether that waits for word of it, which
    it does not before its first look unless there are callbacks to make.
    """

    group: BatchRef
    leader: BatchRef
    waits: bool


async def store_submitted(connection: AsyncConnection, group: BatchRef, requests: Sequence[NewRequest]) -> None:
    """Store a group of requests that was sealed as ``group``, in the same transaction. Its workflow is yet to start."""
    await execute(
        connection,
        """
        WITH noted AS (INSERT INTO request_groups (partition, epoch, sequence, size)
                       VALUES (:partition, :epoch, :sequence, :size))
        INSERT INTO requests (request_id, user_id, type, name, priority, params, callback_url, submitted_at,
                              deadline_at, partition, epoch, sequence)
        SELECT *, :partition, :epoch, :sequence FROM unnest(
            CAST(:request_ids AS uuid[]), CAST(:user_ids AS uuid[]), CAST(:types AS text[]), CAST(:names AS text[]),
            CAST(:priorities AS smallint[]), CAST(:params AS bytea[]), CAST(:callbacks AS text[]),
            CAST(:submitted AS timestamptz[]), CAST(:deadlines AS timestamptz[]))
        """,
        partition=group.stream.number,
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
    """Note a group of requests, whose workflow is yet to be started."""
    await execute(
        connection,
        "INSERT INTO request_groups (partition, epoch, sequence, size) VALUES (:partition, :epoch, :sequence, :size)",
        partition=group.stream.number,
        epoch=group.epoch,
        sequence=group.sequence,
        size=size,
    )


async def missing_requests(connection: AsyncConnection, request_ids: Sequence[UUID]) -> set[UUID]:
    """Which of these requests are not here."""
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
    """Which of these keys have been used, and for what."""
    if not keys:
        return {}
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
    """Remember what each key was used for."""
    for key in keys:
        await execute(
            connection,
            "INSERT INTO idempotency_keys (user_id, key, fingerprint, request_ids)"
            " VALUES (:user_id, :key, :fingerprint, CAST(:request_ids AS uuid[]))",
            user_id=key.user_id,
            key=key.key,
            fingerprint=key.fingerprint,
            request_ids=list(key.request_ids),
        )


OF_GROUP = """
    requests.partition = :partition AND (requests.epoch, requests.sequence) IN (
        SELECT epoch, sequence FROM request_groups
        WHERE partition = :partition AND epoch = :epoch AND (sequence = :sequence OR leader = :sequence))
"""
"""The requests that the workflow of a group sees to: its own, and those of the groups that it leads."""

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
    LEFT JOIN sealed_batches ON sealed_batches.stream = {stream_of(StreamName.REQUESTS, "requests.partition")}
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


async def group_of(connection: AsyncConnection, request_id: UUID) -> BatchRef | None:
    """The group whose workflow sees to a request."""
    found = await row(
        connection,
        "SELECT requests.partition, requests.epoch, coalesce(leader, requests.sequence) FROM requests"
        " LEFT JOIN request_groups USING (partition, epoch, sequence) WHERE request_id = :request_id",
        request_id=request_id,
    )
    return _group(*found) if found else None


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
    """Close a request that has no outcome yet; False when it has one, or is not this user's."""
    return bool(
        await close_requests(
            connection,
            "cancelled",
            "requests.request_id = :request_id AND requests.user_id = :user_id",
            request_id=request_id,
            user_id=user_id,
        )
    )


async def expire_overdue(connection: AsyncConnection, group: BatchRef) -> int:
    """Close the requests of a group whose deadline has passed without a result."""
    return await close_requests(
        connection,
        "expired",
        f"{OF_GROUP} AND requests.deadline_at <= now()",
        partition=group.stream.number,
        epoch=group.epoch,
        sequence=group.sequence,
    )


async def close_requests(connection: AsyncConnection, outcome: str, condition: str, **parameters: Any) -> int:
    """Close the open requests that meet ``condition`` (SQL of ours, never of a caller's) and wake who waits.

    Takes turns with the applying of results, whichever partition they come by, so that a request ends either way and
    never both.
    """
    await lock_applying(connection, *StreamName.RESULTS.partitions())
    closed = await execute(
        connection,
        f"UPDATE requests SET closed = :outcome, closed_at = now() WHERE {condition} AND closed IS NULL"
        " AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)",
        outcome=outcome,
        **parameters,
    )
    if closed:
        await notify(connection, "finished")
    return closed


async def group_state(connection: AsyncConnection, group: BatchRef) -> GroupState:
    """What a group of requests still waits for. By keys alone, as in `fulfilled_groups`."""
    found = await row(
        connection,
        """
        WITH members AS (
            SELECT deadline_at, callback_url, callback_at,
                   closed IS NULL AND NOT EXISTS (
                       SELECT FROM results WHERE results.request_id = asked.request_id OFFSET 0) AS outstanding
            FROM request_groups CROSS JOIN LATERAL (
                SELECT * FROM requests WHERE requests.partition = request_groups.partition
                AND requests.epoch = request_groups.epoch AND requests.sequence = request_groups.sequence
                OFFSET 0) AS asked
            WHERE request_groups.partition = :partition AND request_groups.epoch = :epoch
              AND (request_groups.sequence = :sequence OR leader = :sequence))
        SELECT count(*), count(*) FILTER (WHERE outstanding),
               extract(epoch FROM min(deadline_at) FILTER (WHERE outstanding) - now())::double precision,
               count(*) FILTER (WHERE NOT outstanding AND callback_url IS NOT NULL AND callback_at IS NULL)
        FROM members
        """,
        partition=group.stream.number,
        epoch=group.epoch,
        sequence=group.sequence,
    )
    assert found is not None
    return GroupState(size=found[0], outstanding=found[1], next_deadline_in=found[2], callbacks_due=found[3])


async def fulfilled_groups(connection: AsyncConnection, batch: BatchRef) -> list[FulfilledGroup]:
    """Groups that the results of this batch left with nothing outstanding.

    By keys alone, and no further into a group than to what is outstanding first: OFFSET 0 keeps the planner from
    joining the whole tables, as it would while its statistics are older than most rows, for each batch anew.
    """
    found = await rows(
        connection,
        """
        SELECT candidate.partition, candidate.epoch, candidate.sequence, coalesce(leader, candidate.sequence),
               coalesce(started_at < now() - make_interval(secs => :first_look), true) OR EXISTS (
                   SELECT FROM requests WHERE requests.partition = candidate.partition
                   AND requests.epoch = candidate.epoch AND requests.sequence = candidate.sequence
                   AND callback_url IS NOT NULL OFFSET 0)
        FROM (
            SELECT DISTINCT asked.partition, asked.epoch, asked.sequence
            FROM results CROSS JOIN LATERAL (
                SELECT requests.partition, requests.epoch, requests.sequence FROM requests
                WHERE requests.request_id = results.request_id OFFSET 0) AS asked
            WHERE results.partition = :partition AND results.epoch = :epoch
              AND results.sequence = :sequence) AS candidate
        LEFT JOIN request_groups USING (partition, epoch, sequence)
        WHERE NOT EXISTS (
            SELECT FROM requests
            WHERE requests.partition = candidate.partition AND requests.epoch = candidate.epoch
              AND requests.sequence = candidate.sequence AND closed IS NULL
              AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id OFFSET 0)
            OFFSET 0)
        """,
        partition=batch.stream.number,
        epoch=batch.epoch,
        sequence=batch.sequence,
        first_look=FIRST_LOOK_SECONDS,
    )
    return [
        FulfilledGroup(_group(partition, epoch, number), _group(partition, epoch, leader), waits)
        for partition, epoch, number, leader, waits in found
    ]


def leaders_that_wait(groups: Sequence[FulfilledGroup]) -> list[BatchRef]:
    """Whose workflows are to be told, each once, in order."""
    leaders = {group.leader for group in groups if group.waits}
    return sorted(leaders, key=lambda leader: (leader.stream, leader.epoch, leader.sequence))


async def unstarted_groups(connection: AsyncConnection, older_than_seconds: float, limit: int = 200) -> list[BatchRef]:
    """Groups whose workflow was never started, because Temporal was away: oldest first, with those that they lead."""
    found = await rows(
        connection,
        "SELECT partition, epoch, coalesce(leader, sequence), sum(size) FROM request_groups WHERE started_at IS NULL"
        " AND submitted_at < now() - make_interval(secs => :age) GROUP BY 1, 2, 3 ORDER BY min(submitted_at), 1, 2, 3"
        " LIMIT :limit",
        age=older_than_seconds,
        limit=limit,
    )
    return [_group(*item) for item in found]


def _group(partition: int, epoch: int, sequence: int, size: int = 0) -> BatchRef:
    return BatchRef(stream=StreamName.REQUESTS.at(partition), epoch=epoch, sequence=sequence, records=size)


async def lead_groups(connection: AsyncConnection, leader: BatchRef, led: Sequence[BatchRef]) -> None:
    """Have the workflow of one group see to these as well, and to those that they led; all of its
    partition and epoch.
    """
    await execute(
        connection,
        "UPDATE request_groups SET leader = :leader WHERE partition = :partition AND epoch = :epoch"
        " AND started_at IS NULL"
        " AND (sequence = ANY(CAST(:led AS bigint[])) OR leader = ANY(CAST(:led AS bigint[])))",
        partition=leader.stream.number,
        epoch=leader.epoch,
        leader=leader.sequence,
        led=[group.sequence for group in led],
    )


async def mark_group_started(connection: AsyncConnection, group: BatchRef) -> None:
    """Its workflow, and that of those that it leads, is with Temporal now."""
    await execute(
        connection,
        "UPDATE request_groups SET started_at = now() WHERE partition = :partition AND epoch = :epoch"
        " AND (sequence = :sequence OR leader = :sequence) AND started_at IS NULL",
        partition=group.stream.number,
        epoch=group.epoch,
        sequence=group.sequence,
    )


async def mark_group_fulfilled(connection: AsyncConnection, group: BatchRef) -> None:
    """Nothing is outstanding any more, in it and in those that it leads."""
    await execute(
        connection,
        "UPDATE request_groups SET fulfilled_at = now() WHERE partition = :partition AND epoch = :epoch"
        " AND (sequence = :sequence OR leader = :sequence) AND fulfilled_at IS NULL",
        partition=group.stream.number,
        epoch=group.epoch,
        sequence=group.sequence,
    )


async def count_open(connection: AsyncConnection) -> int:
    """Groups that still wait for something."""
    found: int = await value(connection, "SELECT count(*) FROM request_groups WHERE fulfilled_at IS NULL")
    return found
