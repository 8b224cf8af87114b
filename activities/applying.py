"""Applying results that arrived in the request network: the next batch is opened while this one is stored."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import cast
from uuid import UUID

import orjson
import structlog
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from cache.redis_cache import Cache, result_key
from exchange.concurrency import concurrently
from exchange.opening import records_of
from models.outcomes import ApplyOutcome
from models.requests import RequestStatus
from models.streams import BatchRef, StreamName
from storage.database import autocommit
from storage.incoming import (
    ReceivedBatch,
    first_unapplied,
    is_unapplied,
    lock_applying,
    lock_receiving,
    mark_applied,
    quarantine,
)
from storage.quarantine import numbers_set_aside
from storage.result_store import ArrivedResult, owners, store_results, stored_result_bodies
from storage.submissions import fulfilled_groups, leaders_that_wait

log = structlog.get_logger(__name__)

FINAL = frozenset(status.value for status in RequestStatus if status.is_final)
SIGNALS_AT_ONCE = 16
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
class ResultApplication:
    """Safe to run twice, in several processes at a time too: a batch is applied in one transaction, under a lock, that
    also marks it, and a result that is there stays.
    """

    engine: AsyncEngine
    cache: Cache
    cache_seconds: int
    client: Client

    async def apply_all(
        self, stream: StreamName, outcome: ApplyOutcome, beat: Callable[[ApplyOutcome], None], until: float
    ) -> None:
        """Apply what is there of a partition of results, in order, until nothing is left; ``beat`` is called after each
        batch. After ``until``, by the monotonic clock, no batch more is begun with, and there may be ``more``.

        Whoever accepts a batch while the one before it waits to be applied counts on this to take it along
        (`exchange.receiving.Acceptance.begins_applying`). So the last look takes turns with acceptance: what is not
        seen then is accepted afterwards, with nothing before it left. Where another process is at it too, it is left
        to that one, which ends no sooner either.
        """
        coming = await self._opened_after(stream, None) or await self._last_look(stream)
        while coming is not None:
            opened = coming
            async with concurrently(self._opened_after(stream, opened.batch)) as ahead:
                if not await self._apply(opened, outcome):
                    return
                beat(outcome)
                if time.monotonic() > until:
                    outcome.more = True
                    return
                coming = await ahead or await self._last_look(stream)

    async def _opened_after(self, stream: StreamName, place: BatchRef | None) -> Opened | None:
        async with autocommit(self.engine) as connection:
            stored = await first_unapplied(connection, stream, place)
        return await _open(stream, stored) if stored else None

    async def _last_look(self, stream: StreamName) -> Opened | None:
        async with self.engine.begin() as connection:
            await lock_receiving(connection, stream)
            stored = await first_unapplied(connection, stream)
        return await _open(stream, stored) if stored else None

    async def _apply(self, opened: Opened, outcome: ApplyOutcome) -> bool:
        """Apply one batch; False where it was applied meanwhile."""
        batch, numbered, results, rejected = opened.batch, opened.numbered, opened.results, opened.rejected
        async with self.engine.begin() as connection:
            await lock_applying(connection, batch.stream)
            if not await is_unapplied(connection, batch):
                return False
            first = numbered[0][0] if numbered else 0
            aside = await numbers_set_aside(connection, batch.stream, batch.epoch, first, len(numbered))
            if aside:
                results, rejected = await parse_results([item for item in numbered if item[0] not in aside])
            passed_over = await store_results(connection, batch, results)
            rejected = rejected + await _explain(connection, results, passed_over)
            for number, body, reason in rejected:
                await quarantine(connection, batch.stream, batch.epoch, batch.sequence, number, body, reason)
            groups = await fulfilled_groups(connection, batch)
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
        outcome.groups_fulfilled += len(groups)
        await tell_groups(self.client, leaders_that_wait(groups))
        return True


async def _open(stream: StreamName, stored: ReceivedBatch) -> Opened:
    numbered = list(enumerate(await records_of(stored), stored.first_record))
    batch = BatchRef(stream=stream, epoch=stored.epoch, sequence=stored.sequence, records=stored.records)
    return Opened(batch, numbered, *await parse_results(numbered))


async def tell_groups(client: Client, groups: Sequence[BatchRef], rpc_timeout: timedelta | None = None) -> None:
    """Signal the workflows of groups that have something to look at. One that cannot be reached looks for itself a
    little later.
    """
    slots = asyncio.Semaphore(SIGNALS_AT_ONCE)

    async def tell(group: BatchRef) -> None:
        async with slots:
            try:
                await client.get_workflow_handle(group.workflow_id("fulfil")).signal(
                    "results_arrived", rpc_timeout=rpc_timeout
                )
            except (RPCError, RuntimeError) as error:  # RuntimeError: a lazy client that cannot connect
                if isinstance(error, RPCError) and error.status is RPCStatusCode.NOT_FOUND:
                    return  # it has not begun, and looks when it does; or it has ended
                log.info("group.not_told", group=str(group), error=str(error))

    await asyncio.gather(*(tell(group) for group in groups))


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
