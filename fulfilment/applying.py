"""Applying results that arrived in the request network: the next batch is opened while this one is stored."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast
from uuid import UUID

import orjson
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from cache.redis_cache import Cache, result_key
from exchange.concurrency import concurrently
from exchange.transfer.incoming import (
    ReceivedBatch,
    first_unapplied,
    is_unapplied,
    lock_applying,
    mark_applied,
    records_of,
)
from exchange.transfer.quarantine_store import quarantine, quarantined_numbers
from fulfilment.result_store import ArrivedResult, owners, store_results, stored_result_bodies
from models.outcomes import ApplyOutcome
from models.requests import RequestStatus
from models.streams import BatchRef, StreamName
from storage.database import autocommit

FINAL = frozenset(status.value for status in RequestStatus if status.is_final)
SLICE = 250
"""Records read in one go: about a millisecond."""
WAITED_FOR = 500
"""Results in a batch up to which somebody may be waiting for each: they go into the cache before they are asked for.
More of them are a backlog. It would drive from the cache what is being read, and each enters it when it is read first.
"""

RejectedRecord = tuple[int, bytes, str]
"""Number, body and reason of a record that cannot be applied."""


@dataclass(frozen=True)
class Opened:
    """A batch's records, read as results."""

    batch: BatchRef
    numbered: list[tuple[int, bytes]]
    results: list[ArrivedResult]
    rejected: list[RejectedRecord]


@dataclass(frozen=True)
class ResultApplier:
    """Safe to run twice, in several processes at a time too: a batch is applied in one transaction, under a lock, that
    also marks it, and a result that is there stays.
    """

    engine: AsyncEngine
    cache: Cache
    cache_seconds: int

    async def apply_stored(
        self, outcome: ApplyOutcome, progress: Callable[[ApplyOutcome], Awaitable[None]], may_go_on: Callable[[], bool]
    ) -> None:
        """Apply the batches of results that are stored, in order, until none is left or it may not go on.

        Counts in ``outcome``, and calls ``progress`` with it after each batch. The next batch is opened while this one
        is applied.
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
        """Apply one batch, unless it was applied meanwhile."""
        batch, numbered, results, rejected = opened.batch, opened.numbered, opened.results, opened.rejected
        async with self.engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            if not await is_unapplied(connection, batch):
                return
            first = numbered[0][0] if numbered else 0
            aside = await quarantined_numbers(connection, batch.stream, batch.epoch, first, len(numbered))
            if aside:
                results, rejected = await parse_results([item for item in numbered if item[0] not in aside])
            passed_over = await store_results(connection, batch, results)
            rejected = rejected + await _explain(connection, results, passed_over)
            for number, body, reason in rejected:
                await quarantine(connection, batch.stream, batch.epoch, batch.sequence, number, body, reason)
            waited_for = results if len(results) <= WAITED_FOR else []
            whose = await owners(connection, [item.request_id for item in waited_for])
            await mark_applied(connection, batch.stream, batch.epoch, batch.sequence)
        await self.cache.put_many(
            {
                result_key(whose[item.request_id], item.request_id): item.body
                for item in waited_for
                if item.request_id in whose and item.request_id not in passed_over
            },
            self.cache_seconds,
        )
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
    """Store what are results of requests known here, in the caller's transaction; the first result of a request stays.

    Gives what cannot be applied, with the reason.
    """
    results, rejected = await parse_results(numbered)
    passed_over = await store_results(connection, batch, results)
    return rejected + await _explain(connection, results, passed_over)


async def _explain(
    connection: AsyncConnection, results: Sequence[ArrivedResult], passed_over: set[UUID]
) -> list[RejectedRecord]:
    """Why results were not stored; one that is here already with the same bytes is no news."""
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
    """Read from each record just its request and status; gives the results, and what is none with the reason.

    Slice by slice, so that whatever else goes on is looked after in between. In a thread it would be held up more: the
    interpreter takes 5 ms to turn from a thread that computes to one that has something to send.
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
            # One of Python's UUIDs, made in a fifth of the time and bound to a statement as it is.
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
