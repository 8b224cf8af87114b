"""Applies the results that arrived in the request network."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import orjson
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.concurrency import concurrently
from exchange.transfer.incoming import (
    ReceivedBatch,
    first_unapplied,
    lock_applying,
    mark_applied,
    records_of,
)
from exchange.transfer.quarantine_store import RejectedRecord, quarantine, quarantined_numbers
from fulfilment.result_store import ArrivedResult, store_results, stored_result_bodies
from models.outcomes import ApplyOutcome
from models.requests import RequestStatus
from models.streams import BatchRef, StreamName
from storage.database import autocommit

FINAL = frozenset(status.value for status in RequestStatus if status.is_final)
SLICE = 250
"""Records parsed without a pause: about a millisecond."""


@dataclass(frozen=True)
class Opened:
    """A batch and its parsed records."""

    batch: BatchRef
    numbered: list[tuple[int, bytes]]
    results: list[ArrivedResult]
    rejected: list[RejectedRecord]


@dataclass(frozen=True)
class ResultApplier:
    """Safe to run twice and in several processes at once: one transaction, under a lock, stores the results of a batch
    and marks it as applied. A stored result is never replaced.
    """

    engine: AsyncEngine

    async def apply_stored(
        self, outcome: ApplyOutcome, progress: Callable[[ApplyOutcome], Awaitable[None]], may_go_on: Callable[[], bool]
    ) -> None:
        """Apply the stored batches of results in order, until none is left or ``may_go_on`` returns False.

        Counts in ``outcome`` and calls ``progress`` with it after each batch. Opens the next batch while this one is
        being applied.
        """
        coming = await self._opened_after(None)
        while coming is not None:
            opened = coming
            async with concurrently(self._opened_after(opened.batch)) as ahead:
                await self._apply(opened, outcome)
                await progress(outcome)
                coming = await ahead if may_go_on() else None

    async def _opened_after(self, place: BatchRef | None) -> Opened | None:
        async with autocommit(self.engine) as connection:
            stored = await first_unapplied(connection, StreamName.RESULTS, place)
        return await _open(StreamName.RESULTS, stored) if stored else None

    async def _apply(self, opened: Opened, outcome: ApplyOutcome) -> None:
        """Apply one batch, unless another run has applied it."""
        batch, numbered, results, rejected = opened.batch, opened.numbered, opened.results, opened.rejected
        async with self.engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            if not await mark_applied(connection, batch.stream, batch.epoch, batch.sequence):
                return
            first = numbered[0][0] if numbered else 0
            aside = await quarantined_numbers(connection, batch.stream, batch.epoch, first, len(numbered))
            if aside:
                results, rejected = await parse_results([item for item in numbered if item[0] not in aside])
            passed_over = await store_results(connection, batch, results)
            rejected = rejected + await _explain(connection, results, passed_over)
            await quarantine(connection, batch, rejected)
        outcome.batches += 1
        outcome.records += len(results) - len(passed_over)
        outcome.quarantined += len(rejected) + len(aside)


async def _open(stream: StreamName, stored: ReceivedBatch) -> Opened:
    numbered = list(enumerate(await records_of(stored), stored.first_record))
    batch = BatchRef(stream=stream, epoch=stored.epoch, sequence=stored.sequence, records=stored.records)
    return Opened(batch, numbered, *await parse_results(numbered))


async def take_results(
    connection: AsyncConnection, batch: BatchRef, numbered: Sequence[tuple[int, bytes]]
) -> list[RejectedRecord]:
    """Store results in the caller's transaction and return the records that cannot be applied.

    A result must belong to a request that is stored here. The first result of a request stays.
    """
    results, rejected = await parse_results(numbered)
    passed_over = await store_results(connection, batch, results)
    return rejected + await _explain(connection, results, passed_over)


async def _explain(
    connection: AsyncConnection, results: Sequence[ArrivedResult], passed_over: set[UUID]
) -> list[RejectedRecord]:
    """The reason for each result that was not stored. A repeated record with the same bytes is not rejected."""
    if not passed_over:
        return []
    here = await stored_result_bodies(connection, list(passed_over))
    reasons = []
    for item in results:
        if item.request_id in passed_over:
            known = here.get(item.request_id)
            if known is None:
                reasons.append((item.record, item.body, "a result for a request that is not known here"))
            elif known != item.body:
                reasons.append((item.record, item.body, "another result for a request that has one"))
    return reasons


async def parse_results(
    numbered: Sequence[tuple[int, bytes]],
) -> tuple[list[ArrivedResult], list[RejectedRecord]]:
    """Parse the request id and the status of each record. Return the results and the rejected records.

    Yields to the event loop after each slice. A thread would block the loop longer: the interpreter switches from a
    computing thread only every 5 ms.
    """
    results: dict[UUID, ArrivedResult] = {}
    rejected: list[RejectedRecord] = []
    for begin in range(0, len(numbered), SLICE):
        _parse(numbered[begin : begin + SLICE], results, rejected)
        await asyncio.sleep(0)
    return list(results.values()), rejected


def _parse(
    numbered: Sequence[tuple[int, bytes]], results: dict[UUID, ArrivedResult], rejected: list[RejectedRecord]
) -> None:
    for number, line in numbered:
        try:
            loaded = cast(dict[str, object], orjson.loads(line))
            # A UUID of the driver: made in a fifth of the time, and passed to a statement unchanged.
            request_id, status = DriverUUID(str(loaded["request_id"])), str(loaded["status"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            rejected.append((number, line, f"not a result: {error}"))
            continue
        if status not in FINAL or not isinstance(loaded.get("data"), list):
            rejected.append((number, line, f"not a result: status {status[:32]!r} or no data"))
        elif request_id in results:
            rejected.append((number, line, "the batch holds a result for this request twice"))
        else:
            results[request_id] = ArrivedResult(number, request_id, status, line)
