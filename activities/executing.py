"""Executes batches of requests and stores one result per request."""

import asyncio
import time
from collections.abc import Callable

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio import activity

from exchange.concurrency import concurrently
from exchange.transfer.incoming import lock_applying, mark_applied
from exchange.transfer.sealing import Sealer
from execution.execution_store import (
    FinishedResult,
    WaitingRequest,
    execution_counts,
    store_results,
    waiting_requests,
)
from execution.intake import open_batches
from execution.rechecks import Rechecks
from execution.registry import Executors
from models.outcomes import ExecutionOutcome
from models.streams import BatchRef, StreamName
from orchestration.resident import heartbeating
from storage.database import autocommit

log = structlog.get_logger(__name__)

FLUSH_RESULTS = 500
FLUSH_SECONDS = 0.25
FLUSH_BYTES = 16 * 1024 * 1024
"""Results are committed at this number or size, or this long after the first one: early results do not wait for late
ones, and large ones do not fill the memory."""
WINDOW = 64
"""At most this many tasks exist at a time, so that thousands of requests start in order of priority."""


class ExecutionActivities:
    """Safe to run twice, even at the same time: a request that has a result is skipped, and the first result stays."""

    def __init__(self, engine: AsyncEngine, sealer: Sealer, executors: Executors, concurrency: int) -> None:
        """``concurrency``: requests executed at the same time."""
        self._engine = engine
        self._sealer = sealer
        self._executors = executors
        self._slots = asyncio.Semaphore(concurrency)

    @activity.defn
    async def execute_batches(self, batches: BatchRef) -> ExecutionOutcome:
        """Open received batches, execute what has no result yet, and store the results for delivery."""
        async with heartbeating() as beat:
            rechecks = Rechecks(self._engine, batches)
            async with concurrently(rechecks.look()):
                quarantined = await self._open(batches)
            async with autocommit(self._engine) as connection:
                waiting = await waiting_requests(connection, batches)
            outcome = ExecutionOutcome(records=batches.records, quarantined=quarantined)
            await self._execute(waiting, rechecks, lambda done: beat(outcome.model_copy(update={"executed": done})))
            outcome.by_status = await self._close(batches)
        return outcome

    async def _close(self, batch: BatchRef) -> dict[str, int]:
        """Mark the batches as applied; returns their results, counted by status."""
        async with self._engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            await mark_applied(connection, batch.stream, batch.epoch, batch.sequence, first=batch.begin)
            return await execution_counts(connection, batch)

    async def _open(self, batch: BatchRef) -> int:
        """Store the requests of these batches in one transaction; returns the number of quarantined records."""
        async with self._engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            return await open_batches(connection, batch)

    async def _execute(
        self, waiting: list[WaitingRequest], rechecks: Rechecks, progress: Callable[[int], None]
    ) -> None:
        """Execute these requests in order of priority. Calls ``progress`` with the number of results stored so far."""
        finished: list[FinishedResult] = []
        stored = 0
        first_at = time.monotonic()

        async def one(request: WaitingRequest) -> FinishedResult:
            async with self._slots:
                current, now = await rechecks.before(request)
                return await self._executors.result(current, now.types, now.secrets)

        ahead = iter(waiting)
        running: set[asyncio.Task[FinishedResult]] = set()
        try:
            while True:
                while len(running) < WINDOW and (request := next(ahead, None)) is not None:
                    running.add(asyncio.create_task(one(request)))
                if not running:
                    break
                left = first_at + FLUSH_SECONDS - time.monotonic() if finished else None
                done, running = await asyncio.wait(
                    running, timeout=None if left is None else max(0, left), return_when=asyncio.FIRST_COMPLETED
                )
                if not finished:
                    first_at = time.monotonic()
                finished += [task.result() for task in done]
                if (
                    len(finished) >= FLUSH_RESULTS
                    or sum(len(result.body) for result in finished) >= FLUSH_BYTES
                    or (running and time.monotonic() - first_at >= FLUSH_SECONDS)
                ):
                    stored += await self._flush(finished)
                    progress(stored)
        finally:
            for task in running:
                task.cancel()
        await self._flush(finished)

    async def _flush(self, finished: list[FinishedResult]) -> int:
        """Commit the results and their outbox entries, then clear the list; returns the number of results."""
        count = len(finished)
        if finished:
            async with self._engine.begin() as connection:
                new = await store_results(connection, finished)
                await self._sealer.enqueue(connection, StreamName.RESULTS, [result.body for result in new])
            finished.clear()
        return count
