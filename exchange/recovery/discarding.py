"""Giving up requests that arrived in a period: those that were invented while the request network was captured."""

from datetime import datetime

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from exchange.recovery.quarantine import give_up
from exchange.transfer.incoming import lock_applying
from execution.intake import open_batches
from models.errors import InvalidInput
from models.streams import BatchRef, StreamName
from storage.database import row, rows

log = structlog.get_logger(__name__)

PAGE = 500
STREAM = StreamName.REQUESTS


async def discard_waiting(engine: AsyncEngine, since: datetime, until: datetime | None, by: str, reason: str) -> int:
    """Give each request that was received from ``since`` to ``until`` and has no result a failed one, so that it is
    never executed. Returns how many. Safe to repeat: a request that has a result keeps it.

    Batches that are stored and not opened yet are opened first. One execution that has begun may still finish; its
    result is then not stored.
    """
    if not reason.strip() or not by.strip():
        raise InvalidInput("say who discards the requests and why: both are logged")
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        place = await _open_next(engine, since, until, place)
    discarded = 0
    while True:
        async with engine.begin() as connection:
            await lock_applying(connection, STREAM)
            page = await rows(
                connection,
                """
                SELECT request_id, requests.type FROM requests JOIN received_batches AS batch
                    ON batch.stream = :stream AND batch.epoch = requests.epoch AND batch.sequence = requests.sequence
                WHERE batch.received_at >= :since
                  AND (CAST(:until AS timestamptz) IS NULL OR batch.received_at <= CAST(:until AS timestamptz))
                  AND NOT EXISTS (SELECT FROM results WHERE results.request_id = requests.request_id)
                ORDER BY requests.epoch, requests.sequence, request_id LIMIT :limit
                """,
                stream=STREAM,
                since=since,
                until=until,
                limit=PAGE,
            )
            discarded += await give_up(connection, [(request_id, type_name) for request_id, type_name in page])
        if len(page) < PAGE:
            log.warning("requests.discarded", requests=discarded, since=since.isoformat(), by=by, reason=reason)
            return discarded


async def _open_next(
    engine: AsyncEngine, since: datetime, until: datetime | None, after: tuple[int, int]
) -> tuple[int, int] | None:
    """Store the requests of the next batch of the period that is not applied, after place ``after``.

    Returns its place; None if there is none.
    """
    async with engine.begin() as connection:
        await lock_applying(connection, STREAM)
        found = await row(
            connection,
            """
            SELECT epoch, sequence FROM received_batches
            WHERE stream = :stream AND applied_at IS NULL AND (epoch, sequence) > (:epoch, :sequence)
              AND received_at >= :since
              AND (CAST(:until AS timestamptz) IS NULL OR received_at <= CAST(:until AS timestamptz))
            ORDER BY epoch, sequence LIMIT 1
            """,
            stream=STREAM,
            epoch=after[0],
            sequence=after[1],
            since=since,
            until=until,
        )
        if found is None:
            return None
        batch = BatchRef(stream=STREAM, epoch=found.epoch, sequence=found.sequence)
        await open_batches(connection, batch)
        return batch.epoch, batch.sequence
