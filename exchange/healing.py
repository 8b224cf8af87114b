"""Repairing one side from its own stored batches: rows become again what the batch says, byte for byte.

Nothing is destroyed: what no batch explains is set aside, whole, in the transaction that saw it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from exchange.auditing import Auditor, snapshot_records
from exchange.batch import unpack
from exchange.errors import Malformed
from exchange.keys import LinkKeys
from exchange.restoring import Restorer
from exchange.summaries import Finding, Healed, Kind
from models.requests import RequestRecord
from models.streams import BatchRef, Network, StreamName
from storage.database import notify
from storage.healing import (
    put_arrived_result,
    put_cancellation,
    put_executed_result,
    put_request,
    put_snapshot,
    without_result,
)
from storage.incoming import lock_applying
from storage.orphans import owed_batches, set_rows_aside
from storage.outgoing import lock_sealing
from storage.restoring import seal_snapshot_anew
from storage.verification import is_conflict, one_moment, take_up_again

log = structlog.get_logger(__name__)

ORPHANS_PER_REPAIR = 2000
CONFLICTS = 5
"""Times that rows to be set aside may change under the look before it is left for the next repair."""

Evict = Callable[[UUID, UUID], Awaitable[None]]


async def _nothing_cached(_user_id: UUID, _request_id: UUID) -> None:
    pass


@dataclass(frozen=True)
class Healer:
    """Mends what an `Auditor` of the same side finds. Safe to run twice: it looks anew, and only then changes.

    ``evict`` forgets a result (owner, request) that a cache may still hold as it was.
    """

    engine: AsyncEngine
    auditor: Auditor
    keys: LinkKeys
    evict: Evict = _nothing_cached

    @property
    def batches(self) -> Restorer:
        return Restorer(self.engine, self.auditor.network, self.keys)

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
        """See `Restorer.stored`."""
        return await self.batches.stored(stream, epoch, sequence)

    async def restore(self, stream: StreamName, wire: bytes) -> Healed:
        """See `Restorer.restore`."""
        return await self.batches.restore(stream, wire)

    async def seal_anew(self, stream: StreamName) -> None:
        """Have the next export seal the present snapshot though it did so before."""
        async with self.engine.begin() as connection:
            await lock_sealing(connection, stream)
            await seal_snapshot_anew(connection, stream)

    async def repair(self, stream: StreamName, epoch: int, sequence: int) -> Healed:
        """Make the rows of one batch what its records say, and set aside those that it does not hold. Batch 0 stands
        for rows that no batch holds: a number of them at a time, until it does nothing.

        Raises `LinkError` when the stored batch itself is not what its sender signed: restore that first.
        """
        outcome = Healed()
        await self._set_aside(stream, epoch, sequence, outcome)
        if sequence:
            findings = (await self.auditor.audit(stream, epoch, sequence, sequence)).findings
            async with self.engine.begin() as connection:
                await lock_applying(connection, stream)
                await self._rebuild(connection, stream, epoch, sequence, findings, outcome)
        return outcome

    async def _set_aside(self, stream: StreamName, epoch: int, sequence: int, outcome: Healed) -> None:
        """Looks and moves in one moment: where a row was changed since, PostgreSQL refuses, and it looks again. Who
        changes rows all the time is left for the next repair."""
        for _ in range(CONFLICTS):
            done, cached = Healed(), list[tuple[UUID, UUID]]()
            try:
                async with one_moment(self.engine) as connection:
                    if sequence:
                        findings = (await self.auditor.look(connection, stream, epoch, sequence, sequence)).findings
                    else:
                        findings = await self.auditor.look_for_orphans(connection, stream, ORPHANS_PER_REPAIR)
                    extra = [item for item in findings if item.kind is Kind.EXTRA]
                    for table in sorted({item.table for item in extra}):
                        cached += await self._move(connection, table, extra, done)
            except DBAPIError as error:
                if not is_conflict(error):
                    raise
                continue
            for owner, request_id in cached:
                await self.evict(owner, request_id)
            outcome.add(done)
            return

    async def _move(
        self, connection: AsyncConnection, table: str, extra: Sequence[Finding], done: Healed
    ) -> list[tuple[UUID, UUID]]:
        """Gives owner and id of results that a cache may hold."""
        reasons = {
            item.request_id: f"batch {item.epoch}.{item.sequence} of {item.stream}: {item.detail}"
            for item in extra
            if item.table == table and item.request_id
        }
        moved = await set_rows_aside(connection, table, reasons)
        done.set_aside += len(moved)
        log.warning("verification.set_aside", table=table, rows=len(moved), first=str(next(iter(reasons))))
        if table != "results":
            return []
        if self.auditor.network is Network.RESPONSE:
            # Whether such a result was real or not, its request is owed one that is sealed.
            for batch in await owed_batches(connection, [request_id for request_id, _ in moved]):
                await take_up_again(connection, batch.stream, batch.epoch, batch.sequence)
                done.taken_up_again = True
        return [(owner, request_id) for request_id, owner in moved if owner]

    async def _rebuild(
        self,
        connection: AsyncConnection,
        stream: StreamName,
        epoch: int,
        sequence: int,
        findings: Sequence[Finding],
        outcome: Healed,
    ) -> None:
        wrong = {item.record: item for item in findings if item.record and item.request_id and item.kind != Kind.EXTRA}
        snapshot = any(item.table == "snapshots" for item in findings)
        if not wrong and not snapshot:
            return
        batch = await self.batches.kept(connection, stream, epoch, sequence)
        manifest = self.batches.manifest(stream, batch)
        if batch.payload is None:
            raise Malformed(f"the payload of batch {epoch}.{sequence} of {stream} is gone: restore it first")
        if snapshot:
            records = await snapshot_records(connection, stream, epoch, sequence)
            if records is None:
                raise Malformed(f"a part of snapshot {epoch}.{sequence} of {stream} is gone: restore it first")
            await put_snapshot(connection, stream, epoch, sequence, manifest.sealed_at, records)
            await notify(connection, f"snapshot {stream}")
            outcome.rebuilt += 1
        lines = unpack(manifest, batch.payload)
        for number, line in enumerate(lines, start=manifest.first_record):
            if number in wrong:
                outcome.rebuilt += await self._put(connection, stream, epoch, sequence, line)
        for finding in findings:
            log.warning("verification.repaired", batch=f"{stream} {epoch}.{sequence}", found=finding.model_dump_json())
        if stream.kind is StreamName.RESULTS and self.auditor.network is Network.REQUEST:
            await notify(connection, "finished")
        if stream.kind is StreamName.REQUESTS and self.auditor.network is Network.RESPONSE:
            ids = [item.request_id for item in wrong.values() if item.request_id]
            if await without_result(connection, ids):
                await take_up_again(connection, stream, epoch, sequence)
                outcome.taken_up_again = True

    async def _put(
        self, connection: AsyncConnection, stream: StreamName, epoch: int, sequence: int, line: bytes
    ) -> int:
        batch = BatchRef(stream=stream, epoch=epoch, sequence=sequence)
        if stream.kind is StreamName.RESULTS:
            result = orjson.loads(line)
            request_id = UUID(result["request_id"])
            if self.auditor.network is Network.RESPONSE:
                return await put_executed_result(connection, request_id, result, line)
            owner = await put_arrived_result(connection, request_id, result["status"], line, batch)
            if owner is None:
                return 0  # its request is gone: nobody could read it
            await self.evict(owner, request_id)
            return 1
        record = RequestRecord.model_validate_json(line)
        if record.kind == "cancellation":
            return await put_cancellation(connection, record.request_id, record.submitted_at)
        return await put_request(connection, record, orjson.dumps(record.params), batch)
