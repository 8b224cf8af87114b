"""Attendance is a lease in PostgreSQL: one workflow run at a time applies results, and one makes callbacks.

A row names the run and the end of its lease. A transaction that commits new work reads this row, and starts a run only
if none attends. A run that dies does not renew its row, so that another may take its place after `LEASE_SECONDS`.
"""

import time
from collections.abc import Awaitable, Callable

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from configuration.timing import LEASE_SECONDS, RENEW_SECONDS
from storage.database import execute, row

RESULTS = "apply results"
CALLBACKS = "make callbacks"


async def attend(connection: AsyncConnection, subject: str, attendant: str) -> bool:
    """Take or renew the lease of this subject; False if another run has it.

    Either way the row stays locked until the transaction ends. So a caller that gets False and commits new work does so
    before the other run can `leave`.
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
    """Give up the lease. Then look for work in the same transaction, and roll back if there is some.

    Work that is not visible then is committed later, by a caller that finds no lease and starts a run.
    """
    await execute(
        connection,
        "DELETE FROM attendances WHERE subject = :subject AND attendant = :attendant",
        subject=subject,
        attendant=attendant,
    )


class Attendance:
    """A run's lease, kept while it works."""

    def __init__(self, engine: AsyncEngine, subject: str, attendant: str) -> None:
        """``attendant``: the workflow id of the run."""
        self._engine = engine
        self._subject = subject
        self._attendant = attendant
        self._renew_at = float("-inf")
        self._has_it = True

    async def renew_in_time(self) -> bool:
        """Take the lease, or renew it after `RENEW_SECONDS`; False if another run has it."""
        if time.monotonic() >= self._renew_at:
            async with self._engine.begin() as connection:
                self._has_it = await attend(connection, self._subject, self._attendant)
            self._renew_at = time.monotonic() + RENEW_SECONDS
        return self._has_it

    async def leave_unless(self, is_work_left: Callable[[AsyncConnection], Awaitable[bool]]) -> bool:
        """Give up the lease. If work came in meanwhile, keep it and return False."""
        async with self._engine.connect() as connection, connection.begin() as transaction:
            await leave(connection, self._subject, self._attendant)
            if await is_work_left(connection):
                await transaction.rollback()
                return False
        return True
