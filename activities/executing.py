"""Executing a batch of requests: a stored result for every one, exactly once, and word of it to the exporter."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity

from activities.heartbeats import brief_until, heartbeating
from exchange.concurrency import concurrently
from exchange.opening import records_of
from exchange.sealing import Sealer
from executors.answer import to_json
from executors.registry import ExecutableType, Executors
from models.errors import InvalidInput
from models.executors import SqlExecutor, executor_spec
from models.outcomes import ExecutionOutcome
from models.parameters import ParameterCheck
from models.requests import Limits, RequestRecord
from models.streams import BatchRef, StreamName, partition_of
from storage.catalog import list_request_types, secret_settings
from storage.database import autocommit
from storage.execution_store import (
    FinishedResult,
    WaitingRequest,
    differing_requests,
    execution_counts,
    store_cancellations,
    store_requests,
    store_results,
    waiting_requests,
)
from storage.incoming import lock_applying, mark_applied, quarantine, received_bundle
from storage.quarantine import numbers_set_aside

log = structlog.get_logger(__name__)

FLUSH_RESULTS = 500
FLUSH_SECONDS = 0.25
"""Results are committed when so many are there, or so long after the first: early ones do not wait for late ones."""


class ExecutionActivities:
    """Safe to run twice, even at the same time: a request with a result is passed over, and the first result stays."""

    def __init__(
        self,
        engine: AsyncEngine,
        sealer: Sealer,
        executors: Executors,
        concurrency: int,
        announce: Callable[[], Awaitable[None]],
        partitions: int = 1,
    ) -> None:
        self._engine = engine
        self._sealer = sealer
        self._executors = executors
        self._slots = asyncio.Semaphore(concurrency)
        self._announce = announce
        self._partitions = partitions
        self._under_way = 0

    def is_idle(self) -> bool:
        """Whether this worker executes nothing now."""
        return not self._under_way

    @activity.defn
    async def execute_batch(self, batch: BatchRef) -> ExecutionOutcome:
        """Open received batches, execute what has no result yet, store and announce the results.

        A local activity takes on nothing but queries, which may be asked again should it not come to their end: to do
        so to a service is another matter. It may leave ``more``.
        """
        self._under_way += 1
        try:
            return await self._execute_batch(batch, brief_until())
        finally:
            self._under_way -= 1

    async def _execute_batch(self, batch: BatchRef, until: float) -> ExecutionOutcome:
        async with heartbeating():
            async with concurrently(self._catalog()) as catalog:
                quarantined = await self._open(batch)
            types, secrets = catalog.result()
            async with autocommit(self._engine) as connection:
                waiting = await waiting_requests(connection, batch)
            if activity.info().is_local and not are_queries(waiting, types):
                return ExecutionOutcome(more=True)
            if not await self._execute(waiting, types, secrets, until):
                await self._announce()
                return ExecutionOutcome(more=True)
            _, counts = await asyncio.gather(self._announce(), self._close(batch))
        return ExecutionOutcome(records=batch.records, by_status=counts, quarantined=quarantined)

    async def _catalog(self) -> tuple[Mapping[str, ExecutableType], Mapping[str, str]]:
        """What requests may ask for, and the secrets that executors use."""
        async with autocommit(self._engine) as connection:
            return await executable_types(connection), await secret_settings(connection)

    async def _close(self, batch: BatchRef) -> dict[str, int]:
        """Note that the batches are done; gives their results by status."""
        async with self._engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            await mark_applied(connection, batch.stream, batch.epoch, batch.sequence, first=batch.begin)
            return await execution_counts(connection, batch)

    async def _open(self, batch: BatchRef) -> int:
        """Take the records of the batches into the tables, all in one transaction; gives how many were set aside."""
        async with self._engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            bundle = await received_bundle(connection, batch)
            opened = [stored for stored in bundle if stored.payload is not None]  # past retention: opened long ago
            if not opened:
                return 0
            begin, last = opened[0].first_record, opened[-1]
            aside = await numbers_set_aside(
                connection, batch.stream, batch.epoch, begin, last.first_record + last.records - begin
            )
            rejections = 0
            for stored in opened:
                lines = await records_of(stored)
                numbered = [(n, line) for n, line in enumerate(lines, stored.first_record) if n not in aside]
                one = BatchRef(stream=batch.stream, epoch=batch.epoch, sequence=stored.sequence)
                rejected = await take_requests(connection, one, numbered)
                for number, line, reason in rejected:
                    await quarantine(connection, batch.stream, batch.epoch, stored.sequence, number, line, reason)
                rejections += len(rejected)
        return rejections + len(aside)

    async def _execute(
        self,
        waiting: list[WaitingRequest],
        types: Mapping[str, ExecutableType],
        secrets: Mapping[str, str],
        until: float,
    ) -> bool:
        """False where some were not begun with, because it was after ``until`` by the monotonic clock."""
        finished: list[FinishedResult] = []
        owners = {request.request_id: request.user_id for request in waiting}
        first_at = time.monotonic()

        async def one(request: WaitingRequest) -> FinishedResult:
            async with self._slots:
                return await self._executors.result(request, types, secrets)

        # A window of tasks rather than one per request: a batch of thousands is executed in order of priority.
        ahead = iter(waiting)
        running: set[asyncio.Task[FinishedResult]] = set()
        try:
            while True:
                while len(running) < 64 and time.monotonic() <= until and (request := next(ahead, None)) is not None:
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
                if len(finished) >= FLUSH_RESULTS or (running and time.monotonic() - first_at >= FLUSH_SECONDS):
                    await self._flush(finished, owners)
                    await self._announce()
        finally:
            for task in running:
                task.cancel()
        await self._flush(finished, owners)
        return next(ahead, None) is None

    async def _flush(self, finished: list[FinishedResult], owners: Mapping[UUID, UUID]) -> None:
        """Commit results together with their place in the outbox, of their owner's partition; then forget them here."""
        if finished:
            async with self._engine.begin() as connection:
                by_partition: dict[int, list[bytes]] = {}
                for result in await store_results(connection, finished):
                    number = partition_of(owners[result.request_id], self._partitions)
                    by_partition.setdefault(number, []).append(result.body)
                for number, bodies in by_partition.items():
                    await self._sealer.enqueue(connection, StreamName.RESULTS.at(number), bodies)
            finished.clear()


async def take_requests(
    connection: AsyncConnection, batch: BatchRef, numbered: Sequence[tuple[int, bytes]]
) -> list[tuple[int, bytes, str]]:
    """Store what are requests and cancellations, in the caller's transaction; a request that is here stays as it is.

    Gives number, body and reason of each record that cannot be taken.
    """
    rejected: list[tuple[int, bytes, str]] = []
    requests: dict[UUID, tuple[int, RequestRecord, bytes]] = {}
    cancellations = []
    for number, line in numbered:
        try:
            record = RequestRecord.model_validate_json(line)
        except ValidationError as error:
            rejected.append((number, line, f"not a request: {error.errors(include_url=False)[0]['msg']}"))
            continue
        if record.kind == "cancellation":
            cancellations.append((record.request_id, record.submitted_at))
        elif record.request_id in requests:
            rejected.append((number, line, "the batch holds this request id twice"))
        else:
            requests[record.request_id] = (number, record, line)
    new = await store_requests(
        connection, batch, [(record, to_json(record.params)) for _, record, _ in requests.values()]
    )
    again = [record for request_id, (_, record, _) in requests.items() if request_id not in new]
    changed = await differing_requests(connection, [(record, to_json(record.params)) for record in again])
    rejected += [
        (number, line, "this request id came in an earlier batch, with another request")
        for request_id, (number, _, line) in requests.items()
        if request_id in changed
    ]
    await store_cancellations(connection, cancellations)
    return rejected


def are_queries(waiting: Sequence[WaitingRequest], types: Mapping[str, ExecutableType]) -> bool:
    """Whether nothing but queries comes of these requests."""
    return all(
        isinstance(known.executor, SqlExecutor)
        for known in (types.get(name) for name in {request.type for request in waiting})
        if known is not None
    )


async def executable_types(connection: AsyncConnection) -> dict[str, ExecutableType]:
    """The active request types, compiled. One that cannot be is left out, so that it fails its own requests only."""
    types: dict[str, ExecutableType] = {}
    for found in await list_request_types(connection):
        if found.retired_at is not None:
            continue
        try:
            types[found.name] = ExecutableType(
                found.name,
                found.version,
                Limits.model_validate(found.limits),
                ParameterCheck(found.params_schema),
                executor_spec.validate_python(found.executor),
            )
        except (ValidationError, InvalidInput) as error:
            log.error("execution.type_unusable", type=found.name, error=str(error))
    return types
