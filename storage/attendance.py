"""Who attends to what: one run of a workflow at a time applies the results that come in, or makes the callbacks.

A row says which run it is and until when. Whoever commits new work reads it in the same transaction, and starts a run
only where none attends. A run that dies stops renewing its row, so that its place is free after `LEASE_SECONDS`.
"""

import time
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from storage.database import execute, row

LEASE_SECONDS = 12.0
"""How long a row counts without being renewed: longer than a heartbeat timeout, after which the same run goes on with
another worker, so that a killed worker does not cause a second run."""
RENEW_SECONDS = 4.0
"""A third of it: two renewals may fail."""

RESULTS = "apply results"
CALLBACKS = "make callbacks"


async def attend(connection: AsyncConnection, subject: str, attendant: str) -> bool:
    """Attend to this subject from now on, or renew that; False where another run does.

    The row stays locked until the transaction ends, whatever the answer. So a caller that commits work, and is told
    that another run attends, commits before that run can `leave`.
    """
    found = await row(
        connection,
        """
        INSERT INTO attendances (subject, attendant, attended_until)
        VALUES (:subject, :attendant, clock_timestamp() + make_interval(secs => :lease))
        ON CONFLICT (subject) DO UPDATE SET attendant = excluded.attendant, attended_until = excluded.attended_until
        WHERE attendances.attendant = excluded.attendant OR attendances.attended_until < clock_timestamp()
        RETURNING true
        """,
        subject=subject,
        attendant=attendant,
        lease=LEASE_SECONDS,
    )
    return found is not None


async def leave(connection: AsyncConnection, subject: str, attendant: str) -> None:
    """Attend no longer. Look for work after this in the same transaction, and roll back if there is some: what is not
    seen then is committed later, by a caller that finds nobody here and starts a run.
    """
    await execute(
        connection,
        "DELETE FROM attendances WHERE subject = :subject AND attendant = :attendant",
        subject=subject,
        attendant=attendant,
    )


class Attendance:
    """A run's own place at a subject, kept while it works."""

    def __init__(self, engine: AsyncEngine, subject: str, attendant: str) -> None:
        """``attendant``: the workflow id of the run."""
        self._engine = engine
        self._subject = subject
        self._attendant = attendant
        self._renew_at = float("-inf")
        self._has_it = True

    async def renew_in_time(self) -> bool:
        """Take the place, or renew it when `RENEW_SECONDS` have passed; False where another run has it."""
        if time.monotonic() >= self._renew_at:
            async with self._engine.begin() as connection:
                self._has_it = await attend(connection, self._subject, self._attendant)
            self._renew_at = time.monotonic() + RENEW_SECONDS
        return self._has_it

    async def leave_unless(self, is_work_left: Callable[[AsyncConnection], Awaitable[bool]]) -> bool:
        """Give the place up, unless work came in meanwhile: then nothing changes, and False is returned."""
        async with self._engine.connect() as connection, connection.begin() as transaction:
            await leave(connection, self._subject, self._attendant)
            if await is_work_left(connection):
                await transaction.rollback()
                return False
        return True
