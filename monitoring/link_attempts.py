"""The outcome of the last attempts to use the link, for each stream."""

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from models.foreign_text import cleaned
from models.streams import StreamName
from storage.database import AnyRow, execute, row, value


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed. ``wait``: seconds that the other side asked for; ``clock_ahead``: seconds of its clock."""

    kind: str
    detail: str
    wait: float | None = None
    clock_ahead: float | None = None


async def record_success(connection: AsyncConnection, stream: StreamName) -> None:
    """Record a success."""
    await execute(
        connection,
        """
        INSERT INTO link_attempts (stream, tried_at, ok_at) VALUES (:stream, now(), now())
        ON CONFLICT (stream) DO UPDATE SET tried_at = now(), ok_at = now(), failing_since = NULL, failures = 0,
            kind = NULL, detail = NULL, wait_until = NULL, clock_ahead = NULL
        """,
        stream=stream,
    )


async def record_failure(connection: AsyncConnection, stream: StreamName, failure: Failure) -> int:
    """Record a failure; returns the number of failures in a row."""
    failures: int = await value(
        connection,
        """
        INSERT INTO link_attempts
            (stream, tried_at, failing_since, failures, kind, detail, wait_until, clock_ahead)
        VALUES (:stream, now(), now(), 1, :kind, :detail,
                now() + make_interval(secs => CAST(:wait AS double precision)), CAST(:ahead AS double precision))
        ON CONFLICT (stream) DO UPDATE SET tried_at = now(),
            failing_since = coalesce(link_attempts.failing_since, now()), failures = link_attempts.failures + 1,
            kind = excluded.kind, detail = excluded.detail, wait_until = excluded.wait_until,
            clock_ahead = excluded.clock_ahead
        RETURNING failures
        """,
        stream=stream,
        kind=failure.kind,
        detail=cleaned(failure.detail),
        wait=failure.wait,
        ahead=failure.clock_ahead,
    )
    return failures


async def link_attempts(connection: AsyncConnection, stream: StreamName) -> AnyRow | None:
    """The last attempts; ``kind`` is None after a success. None before the first attempt."""
    return await row(
        connection,
        "SELECT tried_at, ok_at, failing_since, failures, kind, detail, wait_until, clock_ahead FROM link_attempts"
        " WHERE stream = :stream",
        stream=stream,
    )
