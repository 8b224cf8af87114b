"""The alert for requests that wait too long to be executed, in either network as far as it can know."""

import asyncio
import logging
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from models.streams import Network
from monitoring.measurement_store import WAITING, log_alerts, settle_alerts
from storage.database import autocommit, is_unreachable, row

log = structlog.get_logger(__name__)

LOOK_SECONDS = 15.0

# Groups and batches are numbered by age, so the first open one is the oldest: a look reads few rows.
_OLDEST = {
    Network.REQUEST: """
        SELECT extract(epoch FROM now() - requests.submitted_at)::double precision, requests.type
        FROM request_groups JOIN requests USING (epoch, sequence)
        WHERE fulfilled_at IS NULL AND closed IS NULL
          AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id OFFSET 0)
        ORDER BY epoch, sequence LIMIT 1
    """,
    Network.RESPONSE: """
        SELECT extract(epoch FROM now() - received_batches.received_at)::double precision, requests.type
        FROM received_batches LEFT JOIN requests USING (epoch, sequence)
        WHERE stream = 'requests' AND applied_at IS NULL AND records > 0
          AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id OFFSET 0)
        ORDER BY epoch, sequence LIMIT 1
    """,
}
_TODO = {
    Network.REQUEST: "see whether the link works and whether response workers keep up (airlock status there)",
    Network.RESPONSE: "start more workers (airlock worker response), or raise AIRLOCK_RESPONSE_EXECUTIONS",
}


@dataclass(frozen=True)
class OldestWaiting:
    """The request that has waited longest for its result. ``type`` is None in a batch that is not opened yet."""

    seconds: float
    type: str | None


async def oldest_waiting(connection: AsyncConnection, network: Network) -> OldestWaiting | None:
    """The oldest request without a result. In the response network it counts from its arrival there."""
    found = await row(connection, _OLDEST[network])
    return OldestWaiting(*found) if found else None


def judge_waiting(oldest: OldestWaiting | None, network: Network, bound: float) -> dict[str, str]:
    """The alert, as name → message, if the oldest request has waited longer than ``bound`` seconds."""
    if oldest is None or oldest.seconds <= bound:
        return {}
    kind = f" (type {oldest.type})" if oldest.type else ""
    return {
        WAITING: f"the oldest request{kind} waits for {oldest.seconds:.0f} s: {_TODO[network]}. If one user or type"
        " fills the queue, in the request network: airlock requests cancel --user NAME, or --type NAME"
    }


class WaitingWatch:
    """A background task that raises and clears the alert; any number may run. It needs the database only."""

    def __init__(self, engine: AsyncEngine, network: Network, bound: float) -> None:
        self._engine = engine
        self._network = network
        self._bound = bound
        self._is_clear = False
        """Whether this process saw the alert cleared. Another one may have raised it before this one began."""

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except Exception as error:
                if not is_unreachable(error):
                    raise
                log.info("waiting.not_looked_at", reason=type(error).__name__)

    async def look(self) -> None:
        """Raise the alert, or clear it. While nothing waits too long, this is one query."""
        async with autocommit(self._engine) as connection:
            wanted = judge_waiting(await oldest_waiting(connection, self._network), self._network, self._bound)
        if not wanted and self._is_clear:
            return
        async with self._engine.begin() as connection:
            raised, cleared, _ = await settle_alerts(connection, wanted, {WAITING})
        self._is_clear = not wanted
        log_alerts(logging.ERROR, wanted, raised, cleared)
