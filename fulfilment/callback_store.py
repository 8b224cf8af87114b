"""Callbacks in the request network's database: which are due, what became of them, and which were given up."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from storage.database import AnyRow, execute, notify, row, rows
from storage.notices import FINISHED

HOST = "lower(substring(callback_url from '://(?:[^/?#@]*@)?([^/?#]*)'))"
"""Host and port of a callback, as an SQL expression."""
_WAITING = "callback_url IS NOT NULL AND callback_at IS NULL"
_FINISHED_AT = "coalesce(closed_at, (SELECT received_at FROM results WHERE results.request_id = requests.request_id))"


@dataclass(frozen=True)
class DueCallback:
    """A callback that may be made now."""

    request_id: UUID
    user_id: UUID
    host: str


async def callbacks_due(
    connection: AsyncConnection,
    limit: int,
    per_user: int = 1000,
    per_host: int = 1000,
    running: Collection[DueCallback] = (),
) -> list[DueCallback]:
    """Callbacks of finished requests that are due and not running. Users take turns, so that one with thousands does
    not keep others waiting; none has more than ``per_user`` at a time, and no host of a user more than ``per_host``.
    """
    found = await rows(
        connection,
        f"""
        WITH due AS (
            SELECT request_id, user_id, {HOST} AS host,
                   row_number() OVER (PARTITION BY user_id, {HOST} ORDER BY request_id) AS of_host
            FROM requests
            WHERE {_WAITING} AND (callback_after IS NULL OR callback_after <= now())
              AND (closed IS NOT NULL
                   OR EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id OFFSET 0))
              AND request_id <> ALL (CAST(:running AS uuid[]))
        ), in_turn AS (
            SELECT *, row_number() OVER (PARTITION BY user_id ORDER BY of_host, request_id) AS turn
            FROM due WHERE of_host <= :per_host)
        SELECT request_id, user_id, coalesce(host, '') FROM in_turn WHERE turn <= :per_user
        ORDER BY turn, request_id LIMIT :limit
        """,
        running=[callback.request_id for callback in running],
        per_user=per_user,
        per_host=per_host,
        limit=limit,
    )
    return [DueCallback(*item) for item in found]


async def find_callback(connection: AsyncConnection, request_id: UUID) -> AnyRow | None:
    """What a callback says: callback_url, closed, closed_at, body, finished_at, callback_attempts. None if it was made
    or put off in the meantime.
    """
    return await row(
        connection,
        f"""
        SELECT callback_url, closed, closed_at, results.body, coalesce(closed_at, received_at) AS finished_at,
               callback_attempts
        FROM requests LEFT JOIN results USING (request_id)
        WHERE requests.request_id = :request_id AND {_WAITING}
          AND (callback_after IS NULL OR callback_after <= now())
        """,
        request_id=request_id,
    )


async def finish_callback(connection: AsyncConnection, request_id: UUID, lost: str | None) -> None:
    """Record that the callback was delivered, or given up for the reason ``lost``."""
    await execute(
        connection,
        "UPDATE requests SET callback_at = now(), callback_lost = :lost WHERE request_id = :request_id",
        request_id=request_id,
        lost=lost,
    )


async def try_callback_again(connection: AsyncConnection, request_id: UUID, seconds: float) -> None:
    """Record a failed attempt, and when the next one may be made."""
    await execute(
        connection,
        "UPDATE requests SET callback_attempts = callback_attempts + 1,"
        " callback_after = now() + make_interval(secs => :seconds) WHERE request_id = :request_id",
        request_id=request_id,
        seconds=seconds,
    )


async def put_off_host(connection: AsyncConnection, host: str, seconds: float, give_up_seconds: float) -> int:
    """Put off all callbacks to this host, since it does not answer, and give up the old ones among them: with thousands
    of them, each would have to wait for its own attempt. Return the number of those given up.
    """
    given_up = await execute(
        connection,
        f"""
        UPDATE requests SET callback_at = now(), callback_lost = :lost
        WHERE {_WAITING} AND {HOST} = :host AND callback_attempts > 0
          AND {_FINISHED_AT} < now() - make_interval(secs => :give_up)
        """,
        host=host,
        give_up=give_up_seconds,
        lost=f"given up after {give_up_seconds:g} s: its host does not answer",
    )
    await execute(
        connection,
        f"UPDATE requests SET callback_after = greatest(callback_after, now() + make_interval(secs => :seconds)),"
        f" callback_attempts = greatest(callback_attempts, 1) WHERE {_WAITING} AND {HOST} = :host",
        host=host,
        seconds=seconds,
    )
    return given_up


_OF = f"""
    (CAST(:user_id AS uuid) IS NULL OR user_id = :user_id) AND (CAST(:host AS text) IS NULL OR {HOST} = :host)
"""


async def undelivered_callbacks(
    connection: AsyncConnection, user_id: UUID | None, host: str | None, lost: bool, limit: int
) -> Sequence[AnyRow]:
    """Callbacks that were given up or, unless ``lost``, that failed and will be tried again. Newest first."""
    return await rows(
        connection,
        f"""
        SELECT request_id, user_id, {HOST} AS host, callback_attempts AS attempts, callback_after AS next_at,
               callback_at AS given_up_at, callback_lost AS reason
        FROM requests
        WHERE (callback_lost IS NOT NULL OR (NOT :lost AND {_WAITING} AND callback_attempts > 0)) AND {_OF}
        ORDER BY request_id DESC LIMIT :limit
        """,
        user_id=user_id,
        host=host,
        lost=lost,
        limit=limit,
    )


async def send_callbacks_again(
    connection: AsyncConnection, request_ids: Sequence[UUID] | None, user_id: UUID | None, host: str | None
) -> int:
    """Make given-up callbacks due again: these, or all of a user or host. Return their number.

    Their groups are open again, so a run makes the callbacks even if none attends to them now.
    """
    found = await rows(
        connection,
        f"""
        WITH again AS (
            UPDATE requests SET callback_at = NULL, callback_lost = NULL, callback_attempts = 0, callback_after = NULL
            WHERE callback_lost IS NOT NULL AND {_OF}
              AND (CAST(:request_ids AS uuid[]) IS NULL OR request_id = ANY (CAST(:request_ids AS uuid[])))
            RETURNING epoch, sequence
        ), opened AS (
            UPDATE request_groups SET fulfilled_at = NULL, seen_at = NULL
            WHERE (epoch, sequence) IN (SELECT epoch, sequence FROM again)
        )
        SELECT count(*) FROM again
        """,
        request_ids=list(request_ids) if request_ids is not None else None,
        user_id=user_id,
        host=host,
    )
    [(count,)] = found
    if count:
        await notify(connection, FINISHED)
    return int(count)
