"""Every COMMIT of one network passes here, so that a test can crash at it, on either side of it, or hold it up."""

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.util import await_only


class Moment(StrEnum):
    """Where in a commit the process dies."""

    BEFORE = "before"
    """PostgreSQL never hears of the commit: everything in the transaction is undone."""
    AFTER = "after"
    """The transaction is on disk, but nobody who waits for it hears that."""


class Crash(Exception):
    """Stands for the death of a process: whatever it would have done next is not done."""

    def __init__(self, moment: Moment) -> None:
        super().__init__(f"died just {moment} a commit")
        self.moment = moment


@dataclass(frozen=True)
class CrashPlan:
    """Die at the ``nth`` commit from now on, counted from 1."""

    nth: int
    moment: Moment


@dataclass
class Held:
    """The ``nth`` commit from now on waits until it is let go."""

    nth: int
    reached: asyncio.Event
    go_on: asyncio.Event


class Commits:
    """The commits of one engine. At most one crash and one hold are planned at a time; each happens once."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._dialect = engine.sync_engine.dialect
        self._commit = self._dialect.do_commit
        self._crash: CrashPlan | None = None
        self._hold: Held | None = None
        self._counted = 0
        self.crashed = 0
        """Crashes that happened, ever."""
        setattr(self._dialect, "do_commit", self._do_commit)  # noqa: B010

    def restore(self) -> None:
        """Leave the engine as it was."""
        setattr(self._dialect, "do_commit", self._commit)  # noqa: B010

    def crash_at(self, plan: CrashPlan | None) -> None:
        """Plan a crash; None for none."""
        self._crash, self._counted = plan, 0

    def hold_at(self, nth: int) -> Held:
        """Plan that a commit waits."""
        self._counted = 0
        self._hold = Held(nth, asyncio.Event(), asyncio.Event())
        return self._hold

    def release(self) -> None:
        """Let go what is held, and hold nothing that comes."""
        if self._hold is not None:
            self._hold.go_on.set()
            self._hold = None

    def _do_commit(self, connection: Any) -> None:
        self._counted += 1
        if self._hold is not None and self._counted == self._hold.nth:
            self._hold.reached.set()
            await_only(self._hold.go_on.wait())
        crash = self._crash if self._crash is not None and self._counted == self._crash.nth else None
        if crash is not None:
            self._crash = None
            self.crashed += 1
            if crash.moment is Moment.BEFORE:
                raise Crash(crash.moment)
        self._commit(connection)
        if crash is not None:
            raise Crash(crash.moment)
