"""Measurements and alerts of the response network, and what the database says of itself."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from exchange.transfer.incoming import IncomingStream, incoming_stream, unapplied
from exchange.transfer.outgoing import OutgoingStream, outbox_backlog, outgoing_stream, undelivered_backlog
from models.streams import Network, StreamName
from monitoring.link_attempts import link_attempts
from storage.database import execute, lock_until_commit, row, rows

log = structlog.get_logger(__name__)

OF_WORKFLOWS = "workflow-stuck:"
"""Prefix of the alerts that `monitoring.workflow_watch` raises and clears."""
WAITING = "requests-waiting"
"""The alert that `monitoring.waiting` raises and clears."""


@dataclass(frozen=True)
class OpenAlert:
    """An alert that is raised and not cleared."""

    name: str
    message: str
    raised_at: datetime


async def database_state(connection: AsyncConnection) -> dict[str, int]:
    """Size in bytes, connections in use and allowed."""
    found = await row(
        connection,
        "SELECT pg_database_size(current_database()),"
        " (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()),"
        " current_setting('max_connections')::int",
    )
    assert found is not None
    return {"size_bytes": found[0], "connections": found[1], "max_connections": found[2]}


async def stream_states(connection: AsyncConnection, network: Network) -> list[dict[str, Any]]:
    """The state of each stream, as `stream_state` describes it."""
    return [await stream_state(connection, network, stream) for stream in StreamName]


async def stream_state(connection: AsyncConnection, network: Network, stream: StreamName) -> dict[str, Any]:
    """One stream as this network sees it: positions, backlog in records, age of the oldest record in seconds.

    The response network, which opens all connections, adds the outcome of its last attempts.
    """
    now = datetime.now(UTC)

    def age(moment: datetime | None) -> float | None:
        return None if moment is None else round((now - moment).total_seconds(), 1)

    end: OutgoingStream | IncomingStream
    is_outgoing = stream.sender is network
    if is_outgoing:
        end = await outgoing_stream(connection, stream)
        delivered, contact = end.delivered, end.receipt_at
        pending, oldest_pending = await outbox_backlog(connection, stream)
        batches, records, oldest_sealed = await undelivered_backlog(connection, stream)
        oldest = min((moment for moment in (oldest_pending, oldest_sealed) if moment is not None), default=None)
    else:
        end = await incoming_stream(connection, stream)
        delivered, contact = end.sequence, end.heard_at
        waiting = await unapplied(connection, stream)
        batches, records, oldest = len(waiting), sum(batch.records for batch in waiting), None
        pending = records
    state: dict[str, Any] = {
        "stream": stream.value,
        "direction": "out" if is_outgoing else "in",
        "epoch": end.epoch,
        "sequence": end.sequence,
        "records": end.record,
        "delivered": delivered,
        "applied": end.applied,
        "pending_records": pending,
        "in_flight_batches": batches,
        "in_flight_records": records,
        "oldest_age_seconds": age(oldest),
        "last_contact_seconds": age(contact),
        "quarantined": end.quarantined,
        "stopped": end.stopped,
    }
    if network is Network.REQUEST:
        return state
    tried = await link_attempts(connection, stream)
    link = tried and {
        "tried_seconds": age(tried.tried_at),
        "ok_seconds": age(tried.ok_at),
        "failing_seconds": age(tried.failing_since),
        "failures": tried.failures,
        "kind": tried.kind,
        "detail": tried.detail,
        "wait_until": tried.wait_until.isoformat(timespec="seconds") if tried.wait_until else None,
        "clock_ahead": tried.clock_ahead,
    }
    return state | {"link": link}


async def store_measurement(connection: AsyncConnection, measured_at: datetime, body: dict[str, Any]) -> None:
    """Store a measurement; another one of the same time replaces it."""
    await execute(
        connection,
        "INSERT INTO measurements (measured_at, body) VALUES (:measured_at, CAST(:body AS jsonb))"
        " ON CONFLICT (measured_at) DO UPDATE SET body = excluded.body",
        measured_at=measured_at,
        body=json.dumps(body),
    )


async def recent_measurements(connection: AsyncConnection, limit: int) -> list[dict[str, Any]]:
    """The newest measurements, newest first."""
    found = await rows(
        connection, "SELECT body::text FROM measurements ORDER BY measured_at DESC LIMIT :limit", limit=limit
    )
    return [json.loads(body) for (body,) in found]


def log_alerts(level: int, wanted: Mapping[str, str], raised: Collection[str], cleared: Collection[str]) -> None:
    """Log what `settle_alerts` raised and cleared, after its commit. ``level``: of the lines about raised alerts."""
    for name in raised:
        log.log(level, "alert.raised", alert=name, message=wanted[name])
    for name in cleared:
        log.info("alert.cleared", alert=name)


async def settle_alerts(
    connection: AsyncConnection, wanted: dict[str, str], among: Collection[str] | None = None
) -> tuple[list[str], list[str], list[OpenAlert]]:
    """Raise the wanted alerts (name → message) and clear the other open ones, or only those whose names are ``among``.

    With ``among``, look only at alerts of these names; otherwise at all but those that a watch settles. Returns the
    names raised, the names cleared and all open alerts. Holds a lock until the transaction ends.
    """
    await lock_until_commit(connection, "alerts")
    names = {alert.name for alert in await open_alerts(connection)}
    open_before = {
        name for name in names if (name in among if among is not None else not name.startswith((OF_WORKFLOWS, WAITING)))
    }
    for name, message in wanted.items():
        await execute(
            connection,
            "INSERT INTO alerts (name, message) VALUES (:name, :message)"
            " ON CONFLICT (name) WHERE cleared_at IS NULL"
            " DO UPDATE SET message = excluded.message, seen_at = now()",
            name=name,
            message=message,
        )
    cleared = sorted(open_before - wanted.keys())
    await execute(
        connection,
        "UPDATE alerts SET cleared_at = now() WHERE cleared_at IS NULL AND name = ANY(CAST(:names AS text[]))",
        names=cleared,
    )
    return sorted(wanted.keys() - open_before), cleared, await open_alerts(connection)


async def open_alerts(connection: AsyncConnection, prefix: str = "", age: timedelta = timedelta()) -> list[OpenAlert]:
    """Open alerts, oldest first, whose names have this ``prefix`` and which were raised at least ``age`` ago."""
    found: Sequence[Any] = await rows(
        connection,
        "SELECT name, message, raised_at FROM alerts WHERE cleared_at IS NULL"
        " AND starts_with(name, :prefix) AND raised_at <= now() - CAST(:age AS interval) ORDER BY raised_at, name",
        prefix=prefix,
        age=age,
    )
    return [OpenAlert(*item) for item in found]
