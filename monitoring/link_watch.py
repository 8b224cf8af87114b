"""Records the outcome of each use of the link, and raises or clears the stream's alarm at once.

A measurement alone would raise it late, and never while the measuring worker waits for a dead link.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from configuration.cadences import Cadence
from configuration.logs import OutageLog
from exchange.errors import Fork, Gap, LinkError, LinkPaused, LinkUnavailable, StreamStopped
from models.errors import describe
from models.streams import Network, StreamName
from monitoring.link_alarms import WORDS, alarm_names, cadence_of, judge_link
from monitoring.link_attempts import Failure, record_failure, record_success
from monitoring.measurement_store import log_alerts, settle_alerts, stream_state
from storage.database import is_unreachable

log = structlog.get_logger(__name__)

EVERY_SECONDS = 5.0
"""A success after another success is recorded this often at most."""


class LinkWatch:
    """Records attempts. While the database is away it records nothing; the next attempt does."""

    def __init__(self, engine: AsyncEngine, cadences: Mapping[str, Cadence]) -> None:
        self._engine = engine
        self._cadences = cadences
        self._good: dict[StreamName, float] = {}
        self._outages: dict[StreamName, OutageLog] = {}

    async def succeeded(self, stream: StreamName) -> None:
        """Record a success."""
        now = time.monotonic()
        if now < self._good.get(stream, -EVERY_SECONDS) + EVERY_SECONDS:
            return
        self._outage(stream).succeeded(stream=stream)
        await self._settle(stream, None)
        self._good[stream] = now

    async def failed(self, stream: StreamName, error: LinkError) -> int:
        """Record a failure; returns the number of failures in a row, or 1 if that is unknown."""
        self._good.pop(stream, None)
        self._outage(stream).failed(error, isinstance(error, LinkUnavailable), stream=stream)
        return await self._settle(stream, classify(error))

    def _outage(self, stream: StreamName) -> OutageLog:
        return self._outages.setdefault(stream, OutageLog("link.away", "link.back", log))

    async def _settle(self, stream: StreamName, failure: Failure | None) -> int:
        failures = 0
        try:
            async with self._engine.begin() as connection:
                wanted: dict[str, str] = {}
                if failure is None:
                    await record_success(connection, stream)
                else:
                    failures = await record_failure(connection, stream, failure)
                    state = await stream_state(connection, Network.RESPONSE, stream)
                    wanted = judge_link(state, cadence_of(stream, self._cadences))
                raised, cleared, _ = await settle_alerts(connection, wanted, alarm_names(stream))
        except Exception as error:
            if not is_unreachable(error):
                raise
            log.warning("link.not_noted", stream=stream, error=describe(error))
            return 1
        log_alerts(logging.WARNING, wanted, raised, cleared)
        return failures


def classify(error: LinkError) -> Failure:
    """The kind of trouble that an error of the link shows."""
    detail = str(error)
    if isinstance(error, LinkUnavailable):
        if isinstance(error.__cause__, Gap):
            return Failure("gap", str(error.__cause__))
        kind = "dead" if error.retry_after is None else "throttled"
        return Failure(kind, detail, error.retry_after)
    if isinstance(error, LinkPaused):
        refusal = error.extra.get("refusal")
        known = isinstance(refusal, str) and refusal in ("clock-skew", "unknown-key", "bad-signature")
        return Failure(str(refusal) if known else "refused", detail, None, _number(error.extra.get("clock_ahead")))
    if isinstance(error, Fork | StreamStopped):
        return Failure("stopped", detail)
    kind = error.kind if error.kind in WORDS else "malformed"
    return Failure(kind, detail, None, _number(error.extra.get("clock_ahead")))


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None
