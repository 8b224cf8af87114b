"""The workloads: requests from submission to fulfilment, step by step, with the cost of each step."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import UUID

from temporalio.testing import ActivityEnvironment

from bench.counts.counting import Count, Counts, Tally
from bench.counts.servers import Servers
from bench.counts.wire import Statements
from bench.counts.world import World, until, world
from exchange.wire.manifest import MAX_RECORDS
from models.outcomes import PullProgress
from models.streams import BatchRef, Network, StreamName

NAME = "counted"
WARM_UP = 200
"""Requests before the first count, for everything that is done only once."""
ALONE = 20
"""Requests that are submitted one at a time."""
LISTS, LIST = 10, 800
"""Number of lists of requests, and requests in each. The second is no multiple of the results committed together, so
the order in which the last ones finish makes no difference."""
READS = 50

SIZE = """
SELECT sum(pg_total_relation_size(oid)) FROM pg_class
WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
"""

WRITING = ("alone", "bulk.ask", "bulk.execute", "bulk.deliver", "bulk.apply")
"""Steps whose write-ahead log is counted."""

FEW = 0.03
"""Tolerance for bytes: durations and ids differ from run to run, and so does their compression."""
PAGES = 0.05
"""Tolerance for bytes that PostgreSQL writes: page splits depend on the ids, which are partly random."""


class Steps:
    """Counts, step by step. A step begins when nothing of the one before is in progress."""

    def __init__(self, made: World) -> None:
        self.counts: Counts = {}
        self.world = made
        self.statements: dict[str, Counter[str]] = {}

    @asynccontextmanager
    async def step(self, name: str, records: int, batches: int = 0) -> AsyncIterator[None]:
        """Count the work of the block, which handles ``records``; and the link's calls if it sends ``batches``."""
        told, calls, wal = self.world.statements.told.copy(), len(self.world.link.calls), await self._wal()
        yield
        written = await self._wal() - wal
        tallies = self.world.statements.since(told)
        for network in Network:
            tally = tallies.get(self.world.databases[network], Tally())
            label = f"{name}.{network}"
            self.counts[f"{label}.statements"] = Count(tally.told, f"for {records:,} records")
            self.counts[f"{label}.round_trips"] = Count(tally.round_trips, f"for {records:,} records")
            self.counts[f"{label}.commits"] = Count(tally.commits, f"for {records:,} records")
            self.statements[label] = tally.statements
        if name in WRITING:
            self.counts[f"{name}.wal"] = Count(written / records, "bytes a record, both databases", PAGES)
        made = self.world.link.calls[calls:]
        if batches:
            self.counts[f"{name}.link_calls"] = Count(len(made), f"for {batches:,} batches")
            crossed = sum(call.sent + call.came for call in made)
            self.counts[f"{name}.link_bytes"] = Count(crossed / records, "bytes a record, both ways", FEW)

    async def _wal(self) -> int:
        found: int = await self.world.value(
            Network.REQUEST, "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
        )
        return found


async def run_workloads(servers: Servers, root: Path, statements: Statements) -> tuple[Counts, dict[str, Counter[str]]]:
    """Run all of them in one pair of networks; gives the counts, and the statements of each step."""
    async with world(servers, root, NAME, statements) as made, pulling(made):
        await made.publish()
        await through(Steps(made), "warm-up", 1, WARM_UP, "constant")
        steps = Steps(made)
        await alone(steps)
        ids = await through(steps, "bulk", LISTS, LIST, "kilobyte")
        await read(steps, ids[:READS])
        steps.counts |= await batches(made)
    for network in Network:
        steps.counts |= await stored(servers, network)
    return steps.counts, steps.statements


@asynccontextmanager
async def pulling(made: World) -> AsyncIterator[None]:
    """Run the response network's long poll for the block."""
    environment = ActivityEnvironment()
    polling = asyncio.create_task(environment.run(made.activity("pull_requests"), PullProgress()))
    try:
        yield
    finally:
        environment.worker_shutdown()
        await polling


async def alone(steps: Steps) -> None:
    """Requests one at a time, each answered before the next."""
    async with steps.step("alone", ALONE, ALONE):
        for _ in range(ALONE):
            await steps.world.submit([{"type": "constant", "params": {}}])
            await steps.world.all_pulled()
            await execute(steps.world)
            await steps.world.act("deliver", StreamName.RESULTS)
            await apply(steps.world)
            await settle(steps.world)


async def through(steps: Steps, name: str, lists: int, size: int, type_name: str) -> list[UUID]:
    """Lists of requests: all are submitted, then all executed, delivered and applied. Gives their ids."""
    made, records, ids = steps.world, lists * size, list[UUID]()
    async with steps.step(f"{name}.ask", records, lists):
        for place in range(lists):
            numbers = range(place * size, (place + 1) * size)
            ids += await made.submit([{"type": type_name, "params": {"number": number}} for number in numbers])
            await made.all_pulled()
    async with steps.step(f"{name}.execute", records):
        await execute(made)
    async with steps.step(f"{name}.deliver", records, -(-records // MAX_RECORDS)):
        await made.act("deliver", StreamName.RESULTS)
    async with steps.step(f"{name}.apply", records):
        await apply(made)
    async with steps.step(f"{name}.settle", records):
        await settle(made)
    return ids


async def execute(made: World) -> None:
    """Execute the requests that were pulled."""
    for batch in await made.unapplied(StreamName.REQUESTS):
        await made.act("execute_batches", batch)


async def apply(made: World) -> None:
    """Apply the results that were delivered, as the run does that the first of their batches started."""
    first, *_ = await made.unapplied(StreamName.RESULTS)
    await made.act("apply_and_attend", first, first.workflow_id("apply"))


async def settle(made: World) -> None:
    """Settle every open group, as its workflow does."""
    groups = await made.looks[Network.REQUEST].fetch(
        "SELECT epoch, sequence, size FROM request_groups WHERE fulfilled_at IS NULL ORDER BY 1, 2"
    )
    for epoch, sequence, size in groups:
        group = BatchRef(stream=StreamName.REQUESTS, epoch=epoch, sequence=sequence, records=size)
        await made.act("settle_groups", group)


async def read(steps: Steps, ids: Sequence[UUID]) -> None:
    """Read results that are in the cache. Results of a large batch enter it when they are first read."""
    for request_id in ids:
        await steps.world.caller.get(f"/v1/requests/{request_id}/result")
    async with steps.step("read", len(ids)):
        for request_id in ids:
            answer = await steps.world.caller.get(f"/v1/requests/{request_id}/result")
            assert answer.json()["status"] == "completed", answer.text


async def batches(made: World) -> Counts:
    """The batches of the bulk: their number, and the sizes of their manifests and payloads."""
    counts: Counts = {}
    for stream, least in ((StreamName.REQUESTS, LIST), (StreamName.RESULTS, LIST)):
        found = await made.looks[stream.receiver].fetch(
            "SELECT records, octet_length(manifest), octet_length(signature), octet_length(payload)"
            " FROM received_batches WHERE stream = $1 AND records >= $2",
            stream,
            least,
        )
        records = sum(one[0] for one in found)
        head = sum(one[1] + one[2] for one in found) / len(found)
        counts[f"bulk.{stream}.batches"] = Count(len(found), f"for {records:,} records")
        counts[f"bulk.{stream}.manifest"] = Count(head, "bytes a batch, with its signature", FEW)
        counts[f"bulk.{stream}.payload"] = Count(sum(one[3] for one in found) / records, "bytes a record", FEW)
    return counts


async def stored(servers: Servers, network: Network) -> Counts:
    """Rows that a database has written, and its size, after all steps. Remaining connections are ended, because
    PostgreSQL flushes a connection's statistics at its end at the latest.
    """
    look = await servers.look(f"{NAME}_{network}")
    try:

        async def is_left_alone() -> bool:
            ended = await look.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            return not ended

        await until(is_left_alone, f"nobody is connected to the {network} network's database")
        rows = await look.fetchrow(
            "SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del), sum(n_tup_upd - n_tup_hot_upd)"
            " FROM pg_stat_user_tables"
        )
        await look.execute("VACUUM")
        size = await look.fetchval(SIZE)
    finally:
        await look.close()
    assert rows is not None
    records = WARM_UP + ALONE + LISTS * LIST
    kinds = zip(("inserted", "updated", "deleted", "updated_with_indexes"), rows, strict=True)
    counts = {f"all.{network}.rows_{kind}": Count(int(number), f"for {records:,} records") for kind, number in kinds}
    indexed = f"all.{network}.rows_updated_with_indexes"  # where the row's page is full
    counts[indexed] = dataclasses.replace(counts[indexed], tolerance=3 * PAGES)
    return counts | {f"all.{network}.tables": Count(float(size) / records, "bytes a record, with indexes", PAGES)}
