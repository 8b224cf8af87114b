"""Applying what arrived in the request network: results and snapshots, then the cache, then whoever waits."""

import asyncio
from collections.abc import Sequence
from typing import cast
from uuid import UUID

import orjson
import structlog
from asyncpg.pgproto.pgproto import UUID as DriverUUID
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from temporalio import activity
from temporalio.client import Client
from temporalio.service import RPCError

from activities.heartbeats import heartbeating
from cache.redis_cache import Cache, result_key
from exchange.batch import unpack
from exchange.manifest import Manifest
from models.outcomes import ApplyOutcome
from models.requests import RequestStatus
from models.settings import SettingsRecord
from models.streams import BatchRef, StreamName
from storage.arrivals import ArrivedResult, owners, store_results, store_snapshot, stored_result_bodies
from storage.incoming import (
    ReceivedBatch,
    first_unapplied,
    hold_applying,
    mark_applied,
    quarantine,
    received_batch,
    unapplied,
)
from storage.quarantine import numbers_set_aside
from storage.submissions import fulfilled_groups

log = structlog.get_logger(__name__)

FINAL = frozenset(status.value for status in RequestStatus if status.is_final)
SIGNALS_AT_ONCE = 16
WAITED_FOR = 500
"""Results in a batch up to which somebody may be waiting for each: they go into the cache before they are asked for.
More of them are a backlog. It would drive from the cache what is being read, and each enters it when it is read first.
"""

SetAsideRecord = tuple[int, bytes, str]
"""Number, body and reason of a record that cannot be applied."""


class ImportActivities:
    """Safe to run twice: a batch is applied in one transaction that also marks it, and a result that is there stays."""

    def __init__(self, engine: AsyncEngine, cache: Cache, cache_seconds: int, client: Client) -> None:
        self._engine = engine
        self._cache = cache
        self._cache_seconds = cache_seconds
        self._client = client
        self._turns = {stream: asyncio.Lock() for stream in StreamName}

    @activity.defn
    async def apply_batches(self, newest: BatchRef) -> ApplyOutcome:
        """Apply every batch of the stream up to ``newest`` that is not applied yet, in order.

        Each is one transaction; the cache is refreshed after it, and the groups of requests that are complete are told.
        Runs take turns here, before they do in the database: one that waits there would hold a connection meanwhile.
        """
        outcome = ApplyOutcome()
        async with heartbeating() as beat, self._turns[newest.stream]:
            if newest.stream is StreamName.RESULTS:
                while await self._apply_results(newest, outcome):
                    beat(outcome)
            else:
                before = -1
                while outcome.batches > before and (waiting := await self._waiting(newest)):
                    before = outcome.batches
                    for batch in waiting:
                        await self._apply_snapshot(batch, outcome)
                        beat(outcome)
        return outcome

    async def _waiting(self, newest: BatchRef) -> list[BatchRef]:
        async with self._engine.connect() as connection:
            found = await unapplied(connection, newest.stream)
        return [batch for batch in found if (batch.epoch, batch.sequence) <= (newest.epoch, newest.sequence)]

    async def _apply_results(self, newest: BatchRef, outcome: ApplyOutcome) -> bool:
        """Apply the oldest batch that is not applied yet; False where there is none."""
        async with self._engine.begin() as connection:
            await hold_applying(connection, newest.stream)
            stored = await first_unapplied(connection, newest)
            if stored is None:
                return False
            batch = BatchRef(stream=newest.stream, epoch=stored.epoch, sequence=stored.sequence)
            lines = await _records(stored)
            aside = await numbers_set_aside(connection, batch.stream, batch.epoch, stored.first_record, len(lines))
            numbered = [(n, line) for n, line in enumerate(lines, stored.first_record) if n not in aside]
            results, passed_over, rejected = await take_results(connection, batch, numbered)
            for number, body, reason in rejected:
                await quarantine(connection, batch.stream, batch.epoch, batch.sequence, number, body, reason)
            groups = await fulfilled_groups(connection, batch.epoch, batch.sequence)
            added = [item for item in results if item.request_id not in passed_over]
            waited_for = added if len(added) <= WAITED_FOR else []
            whose = await owners(connection, [item.request_id for item in waited_for])
            await mark_applied(connection, batch.stream, batch.epoch, batch.sequence)
        await self._cache.put_many(
            {
                result_key(whose[item.request_id], item.request_id): item.body
                for item in waited_for
                if item.request_id in whose
            },
            self._cache_seconds,
        )
        outcome.batches += 1
        outcome.records += len(added)
        outcome.quarantined += len(rejected) + len(aside)
        outcome.groups_fulfilled += len(groups)
        await tell_groups(self._client, groups)
        return True

    async def _apply_snapshot(self, batch: BatchRef, outcome: ApplyOutcome) -> None:
        """Replace the snapshot by the one that this batch completes. Earlier parts wait for the one that does."""
        async with self._engine.begin() as connection:
            await hold_applying(connection, batch.stream)
            stored = await received_batch(connection, batch.stream, batch.epoch, batch.sequence)
            if stored is None:
                return
            manifest = Manifest.model_validate_json(stored.manifest)
            if manifest.part < manifest.parts:
                return
            parts = await _parts(connection, batch, manifest)
            complete = len(parts) == manifest.parts
            good: list[bytes] = []
            quarantined = 0
            for part in parts if complete else [stored]:
                lines = await _records(part)
                bad = bad_records(batch.stream, list(enumerate(lines, part.first_record)), complete)
                for number, body, reason in bad:
                    await quarantine(connection, batch.stream, batch.epoch, part.sequence, number, body, reason)
                rejected = {number for number, _, _ in bad}
                good += [line for number, line in enumerate(lines, part.first_record) if number not in rejected]
                quarantined += len(bad)
            replaced = complete and await store_snapshot(
                connection, batch.stream, batch.epoch, batch.sequence, manifest.sealed_at, b"\n".join(good)
            )
            for part in parts or [stored]:
                await mark_applied(connection, batch.stream, batch.epoch, part.sequence, superseded=not replaced)
        outcome.batches += len(parts)
        outcome.records += len(good) if replaced else 0
        outcome.superseded += 0 if replaced else 1
        outcome.quarantined += quarantined


async def tell_groups(client: Client, groups: Sequence[BatchRef]) -> None:
    """Signal the workflows of complete groups. One that cannot be reached looks for itself a little later."""
    slots = asyncio.Semaphore(SIGNALS_AT_ONCE)

    async def tell(group: BatchRef) -> None:
        async with slots:
            try:
                await client.get_workflow_handle(group.workflow_id("fulfil")).signal("results_arrived")
            except (RPCError, RuntimeError) as error:  # RuntimeError: a lazy client that cannot connect
                log.info("group.not_told", group=str(group), error=str(error))

    await asyncio.gather(*(tell(group) for group in groups))


async def _parts(connection: AsyncConnection, last: BatchRef, manifest: Manifest) -> list[ReceivedBatch]:
    """The batches that make a snapshot together, up to its last one; fewer than its parts where one does not belong."""
    found = []
    for part in range(1, manifest.parts + 1):
        sequence = last.sequence - manifest.parts + part
        stored = await received_batch(connection, last.stream, last.epoch, sequence)
        if stored is not None:
            its = Manifest.model_validate_json(stored.manifest)
            if (its.part, its.parts) == (part, manifest.parts):
                found.append(stored)
    return found


async def _records(stored: ReceivedBatch) -> list[bytes]:
    manifest = Manifest.model_validate_json(stored.manifest)
    return await asyncio.to_thread(unpack, manifest, stored.payload)


async def take_results(
    connection: AsyncConnection, batch: BatchRef, numbered: Sequence[tuple[int, bytes]]
) -> tuple[list[ArrivedResult], set[UUID], list[SetAsideRecord]]:
    """Store what are results of requests known here, in the caller's transaction; the first result of a request stays.

    Gives the results, which of them were passed over, and what cannot be applied with the reason.
    """
    results, rejected = parse_results(numbered)
    passed_over = await store_results(connection, batch, results)
    if passed_over:
        rejected += await _explain(connection, [item for item in results if item.request_id in passed_over])
    return results, passed_over, rejected


async def _explain(connection: AsyncConnection, passed_over: list[ArrivedResult]) -> list[SetAsideRecord]:
    """Why results were not stored; one that is here already with the same bytes is no news."""
    here = await stored_result_bodies(connection, [item.request_id for item in passed_over])
    reasons = []
    for item in passed_over:
        known = here.get(item.request_id)
        if known is None:
            reasons.append((item.record, item.body, "a result for a request that is not known here"))
        elif known != item.body:
            reasons.append((item.record, item.body, "another result for a request that has one"))
    return reasons


def parse_results(numbered: Sequence[tuple[int, bytes]]) -> tuple[list[ArrivedResult], list[SetAsideRecord]]:
    """Read from each record just its request and status; gives the results, and what is none with the reason."""
    results: dict[UUID, ArrivedResult] = {}
    rejected: list[SetAsideRecord] = []
    for number, line in numbered:
        try:
            loaded = cast(dict[str, object], orjson.loads(line))
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
    return list(results.values()), rejected


def bad_records(stream: StreamName, numbered: Sequence[tuple[int, bytes]], complete: bool) -> list[SetAsideRecord]:
    """The records of a snapshot that are not what the stream carries: all of them where parts of it are missing."""
    if not complete:
        return [(number, line, "parts of this snapshot are missing") for number, line in numbered]
    bad = []
    for number, line in numbered:
        try:
            if stream is StreamName.SETTINGS:
                SettingsRecord.validate_json(line)
            else:
                orjson.loads(line)
        except (ValidationError, orjson.JSONDecodeError) as error:
            bad.append((number, line, f"not a record of {stream}: {str(error).splitlines()[0]}"))
    return bad
