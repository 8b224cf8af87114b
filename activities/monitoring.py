"""Measures the response network (host, database, cache, workers, schedules, streams) and raises or clears alerts."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import psutil
import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from cache.redis_cache import BROKEN, Cache
from configuration.cadences import Cadence
from exchange.errors import StreamStopped
from exchange.link_keys.store import link_keys
from exchange.transfer.sealing import Sealer
from models.outcomes import MonitoringOutcome
from models.streams import Network, StreamName
from monitoring.alerting import judge
from monitoring.key_alarms import judge_keys
from monitoring.measurement_store import (
    OpenAlert,
    database_state,
    log_alerts,
    recent_measurements,
    settle_alerts,
    store_measurement,
    stream_states,
)
from orchestration.resident import heartbeating

log = structlog.get_logger(__name__)


class MonitoringActivities:
    """Safe to run twice: a measurement is one row per scheduled time, and alerts follow the newest measurement."""

    def __init__(
        self,
        engine: AsyncEngine,
        cache: Cache,
        sealer: Sealer,
        cadences: Mapping[str, Cadence],
        temporal_state: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        self._engine = engine
        self._cache = cache
        self._sealer = sealer
        self._cadences = cadences
        self._temporal_state = temporal_state
        self._began = time.monotonic()

    @activity.defn
    async def measure(self) -> MonitoringOutcome:
        """Measure this side, store it, raise and clear alerts, and seal the public part for the ``health`` stream."""
        async with heartbeating():
            measured_at = activity.info().scheduled_time
            body: dict[str, Any] = {
                "measured_at": measured_at.isoformat(),
                "host": await asyncio.to_thread(host_state),
                "redis": await self._redis_state(),
                **await self._temporal_state(),
            }
            async with self._engine.begin() as connection:
                started = time.perf_counter()
                database = await database_state(connection)
                body["database"] = {**database, "answer_ms": round((time.perf_counter() - started) * 1000, 3)}
                body["streams"] = await stream_states(connection, Network.RESPONSE)
                earlier = await recent_measurements(connection, 1)
                awake = time.monotonic() - self._began
                wanted = judge(body, earlier[0] if earlier else None, self._cadences, awake)
                wanted |= judge_keys((await link_keys(connection)).values(), Network.RESPONSE)
                raised, cleared, still_open = await settle_alerts(connection, wanted)
                body["alerts"] = [alert.name for alert in still_open]
                await store_measurement(connection, measured_at, body)
                try:
                    await self._sealer.seal_snapshot(connection, StreamName.HEALTH, health_records(body, still_open))
                except StreamStopped as error:  # a stopped stream must not stop the measurements
                    log.warning("health.not_sealed", reason=str(error))
        log_alerts(logging.WARNING, wanted, raised, cleared)
        return outcome_of(body, raised, cleared)

    async def _redis_state(self) -> dict[str, Any]:
        try:
            return {"available": True, **await self._cache.measure()}
        except BROKEN as error:  # no message: it may quote what Redis said
            return {"available": False, "error": type(error).__name__}


def outcome_of(body: Mapping[str, Any], raised: list[str], cleared: list[str]) -> MonitoringOutcome:
    """The key figures of a measurement, as Temporal's Web UI shows them."""
    ages = [state["oldest_age_seconds"] for state in body["streams"] if state["oldest_age_seconds"] is not None]
    return MonitoringOutcome(
        backlog={
            # The records in flight of an incoming stream are its pending records: count them once.
            state["stream"]: state["pending_records"] + (state["in_flight_records"] * (state["direction"] == "out"))
            for state in body["streams"]
        },
        oldest_seconds=max(ages, default=None),
        workers=body.get("workers", {}).get("polling"),
        cpu_percent=body["host"]["cpu_percent"],
        memory_percent=body["host"]["memory_percent"],
        disk_free_bytes=body["host"]["disk_free_bytes"],
        database_ms=body["database"]["answer_ms"],
        database_bytes=body["database"]["size_bytes"],
        redis_ms=body["redis"].get("answer_ms"),
        raised=raised,
        cleared=cleared,
        open=body["alerts"],
    )


def host_state() -> dict[str, Any]:
    """Load, memory and disk of this machine, by psutil. Blocks for 0.1 s to measure the processor."""
    memory, disk = psutil.virtual_memory(), psutil.disk_usage("/")
    return {
        "cpu_percent": psutil.cpu_percent(interval=0.1),
        "cpus": psutil.cpu_count(),
        "load": list(psutil.getloadavg()),
        "memory_percent": memory.percent,
        "memory_available_bytes": memory.available,
        "disk_percent": disk.percent,
        "disk_free_bytes": disk.free,
    }


def health_records(body: Mapping[str, Any], alerts: list[OpenAlert]) -> list[bytes]:
    """The part of a measurement that crosses: status, alerts and positions of streams, and nothing about hosts."""
    return [
        orjson.dumps(
            {
                "measured_at": body["measured_at"],
                "status": "degraded" if alerts else "ok",
                "alerts": [{"name": alert.name, "raised_at": alert.raised_at} for alert in alerts],
                "workers": body.get("workers", {}).get("polling"),
                "streams": [
                    {
                        key: state[key]
                        for key in ("stream", "sequence", "delivered", "pending_records", "oldest_age_seconds")
                    }
                    for state in body["streams"]
                ],
            },
            option=orjson.OPT_UTC_Z,
        )
    ]
