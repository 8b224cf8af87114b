"""What changed since a range of requests was begun: types, secrets, cancellations and deadlines.

A range may take hours. A type that is corrected or retired, and a request that is cancelled or expires, must have their
effect on every request that has not begun.
"""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from execution.execution_store import WaitingRequest, waiting_requests_closed
from execution.registry import ExecutableType
from execution.request_types import executable_types
from models.streams import BatchRef
from settings.setting_store import secret_settings
from storage.database import autocommit, value

RECHECK_SECONDS = 1.0
"""A look is shared by all requests that begin within this time: one query, whatever their number."""

_VERSIONS = """
SELECT concat(
    (SELECT md5(string_agg(concat_ws(' ', name, version, retired_at), ',' ORDER BY name)) FROM request_types), ' ',
    (SELECT md5(string_agg(concat_ws(' ', name, version), ',' ORDER BY name)) FROM settings))
"""


@dataclass(frozen=True)
class Rechecked:
    """What holds now: the active types, and the secrets that their executors use."""

    types: Mapping[str, ExecutableType]
    secrets: Mapping[str, str]


class Rechecks:
    """Looks again before each request of a range begins."""

    def __init__(self, engine: AsyncEngine, batches: BatchRef) -> None:
        self._engine = engine
        self._batches = batches
        self._is_first = True
        self._versions: str | None = None
        self._now = Rechecked({}, {})
        self._cancelled: frozenset[UUID] = frozenset()
        self._expired: frozenset[UUID] = frozenset()
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()

    async def before(self, request: WaitingRequest) -> tuple[WaitingRequest, Rechecked]:
        """The request as it stands now, with the types and secrets of now."""
        await self.look()
        current = replace(
            request,
            cancelled=request.cancelled or request.request_id in self._cancelled,
            deadline_passed=request.deadline_passed or request.request_id in self._expired,
        )
        return current, self._now

    async def look(self) -> None:
        """Read what changed, unless that was done within `RECHECK_SECONDS`."""
        async with self._looking:
            if time.monotonic() < self._looked_at + RECHECK_SECONDS:
                return
            async with autocommit(self._engine) as connection:
                if self._is_first:  # most ranges need no second look, and their requests were read just now
                    self._now = await self._read(connection)
                else:
                    await self._look_again(connection)
            self._is_first = False
            self._looked_at = time.monotonic()

    async def _look_again(self, connection: AsyncConnection) -> None:
        closed = await waiting_requests_closed(connection, self._batches)
        versions = await value(connection, _VERSIONS)
        if versions != self._versions:
            self._now = await self._read(connection)
        self._versions = versions
        self._cancelled = frozenset(key for key, cancelled in closed if cancelled)
        self._expired = frozenset(key for key, cancelled in closed if not cancelled)

    @staticmethod
    async def _read(connection: AsyncConnection) -> Rechecked:
        return Rechecked(await executable_types(connection), await secret_settings(connection))
