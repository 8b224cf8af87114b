"""Machines of the two log streams, in which every record counts: results are pushed, requests are pulled."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import orjson
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule
from sqlalchemy.ext.asyncio import AsyncConnection

from fulfilment.request_store import NewRequest, store_submitted
from models.streams import Network, StreamName
from tests.protocol.commits import Crash, CrashPlan, Moment
from tests.protocol.invariants import Record, check_all_applied, check_all_delivered, check_custody
from tests.protocol.machine import CRASHES, FAULTS, PICK, CrossingMachine
from tests.protocol.network import Fault
from tests.protocol.seen import Seen, bodies
from tests.protocol.world import Work, World

USER = UUID(int=7)
KINDS = st.lists(st.sampled_from([True, True, True, False]), min_size=1, max_size=4)
"""For each new record whether it can be applied."""
OWN_CRASH = st.sampled_from([None, None, None, None, *Moment])
OPEN_AT_ONCE = 3


class LogMachine(CrossingMachine):
    """Both log streams: what is committed, and how that ends."""

    def __init__(self, world: World) -> None:
        self._ids = 0
        super().__init__(world)

    def make(self, kinds: list[bool]) -> list[Record]:
        """New records; they are not committed yet."""
        return [Record(self.body(self._next_id(), good), self.model.moment(), 0, good) for good in kinds]

    def committed(self, records: list[Record]) -> None:
        """From now on these records must never be lost."""
        moment = self.model.moment()
        self.model.committed += [Record(one.body, one.inserted, moment, one.good) for one in records]

    def _next_id(self) -> UUID:
        self._ids += 1
        return UUID(int=self._ids)

    def body(self, request_id: UUID, good: bool) -> bytes:
        """A record of this stream."""
        raise NotImplementedError

    async def applied(self) -> list[bytes]:
        """The records that the receiver has applied, each as often as it did."""
        raise NotImplementedError

    async def check_records(self, seen: Seen) -> None:
        check_custody(self.model, seen, await self.applied())

    async def check_end(self, seen: Seen) -> None:
        check_all_delivered(seen)
        check_all_applied(self.model, seen, await self.applied())


class PushedLog(LogMachine):
    """Results: they gather in an outbox, are sealed and pushed."""

    stream = StreamName.RESULTS

    def __init__(self, world: World) -> None:
        self.open: list[tuple[AsyncConnection, list[Record]]] = []
        super().__init__(world)

    def body(self, request_id: UUID, good: bool) -> bytes:
        return orjson.dumps({"request_id": request_id, "status": "completed" if good else "unheard of", "data": []})

    async def applied(self) -> list[bytes]:
        return await bodies(self.world.connections[Network.REQUEST], "SELECT body FROM results")

    async def settle(self) -> None:
        for _ in range(2):  # the second time a heartbeat brings home that all is applied
            await self.world.drain(self.stream)
            await self.world.import_batches(self.stream)
        await self.world.drain(self.stream)

    def teardown(self) -> None:
        while self.open:
            self.do(self._end(self.open.pop(), True))
        super().teardown()

    def works(self) -> dict[str, Work]:
        return {
            "drain": lambda: self.world.drain(self.stream),
            "seal": lambda: self.world.seal_pending(self.stream),
            "apply": lambda: self.world.import_batches(self.stream),
            "commit": self._commit_one,
            "overtake": self.overtake,
        }

    @rule(kinds=KINDS, crash=OWN_CRASH)
    def results_are_committed(self, kinds: list[bool], crash: Moment | None) -> None:
        self.do(self._commit(self.make(kinds), crash))

    @precondition(lambda self: len(self.open) < OPEN_AT_ONCE)
    @rule(kinds=KINDS)
    def a_transaction_begins(self, kinds: list[bool]) -> None:
        """It has its place in the outbox's numbers, and commits when it likes."""
        self.do(self._begin(kinds))

    @precondition(lambda self: self.open)
    @rule(pick=PICK, commit=st.booleans())
    def a_transaction_ends(self, pick: int, commit: bool) -> None:
        self.do(self._end(self.open.pop(pick % len(self.open)), commit))

    @rule(crash=CRASHES)
    def pending_records_are_sealed(self, crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.seal_pending(self.stream), crash=crash))

    @rule(faults=FAULTS, crash=CRASHES)
    def the_stream_is_drained(self, faults: list[Fault], crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.drain(self.stream), faults, crash))

    @rule(crash=CRASHES)
    def what_arrived_is_applied(self, crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.import_batches(self.stream), crash=crash))

    async def _commit_one(self) -> None:
        await self._commit(self.make([True]), None)

    async def _commit(self, records: list[Record], crash: Moment | None) -> None:
        await self._expect(records)
        commits = self.world.commits[Network.RESPONSE]
        if crash is not None:
            commits.crash_at(CrashPlan(1, crash))
        try:
            async with self.world.engines[Network.RESPONSE].begin() as connection:
                await self._enqueue(connection, records)
        except Crash as died:
            if died.moment is Moment.BEFORE:
                return
        self.committed(records)

    async def _begin(self, kinds: list[bool]) -> None:
        records = self.make(kinds)
        await self._expect(records)
        connection = await self.world.engines[Network.RESPONSE].connect()
        await self._enqueue(connection, records)
        self.open.append((connection, records))

    async def _end(self, transaction: tuple[AsyncConnection, list[Record]], commit: bool) -> None:
        connection, records = transaction
        if commit:
            await connection.commit()
            self.committed(records)
        await connection.close()

    async def _enqueue(self, connection: AsyncConnection, records: list[Record]) -> None:
        await self.world.sealers[Network.RESPONSE].enqueue(connection, self.stream, [one.body for one in records])

    async def _expect(self, records: list[Record]) -> None:
        """Have the requests be known that these are the results of."""
        await self.world.connections[Network.REQUEST].executemany(
            "INSERT INTO requests (request_id, user_id, type, priority, params, submitted_at, epoch, sequence)"
            " VALUES ($1, $2, 'any', 5, '{}', now(), 1, 1)",
            [(UUID(orjson.loads(one.body)["request_id"]), USER) for one in records],
        )


class PulledLog(LogMachine):
    """Requests: they are sealed as they are submitted, and pulled."""

    stream = StreamName.REQUESTS

    def body(self, request_id: UUID, good: bool) -> bytes:
        record = {"request_id": request_id, "user_id": USER, "type": "none", "submitted_at": "2026-01-02T03:04:05Z"}
        return orjson.dumps(record if good else record | {"priority": 99})

    async def applied(self) -> list[bytes]:
        there = self.world.connections[Network.RESPONSE]
        executed = await bodies(there, "SELECT request_id FROM results")
        waiting = [orjson.loads(body)["request_id"] for body in await bodies(there, "SELECT body FROM outbox")]
        assert sorted(map(str, executed)) == sorted(waiting), "each result must have one place in the outbox"
        known = {orjson.loads(one.body)["request_id"]: one.body for one in self.model.committed}
        return [known[str(request_id)] for request_id in executed]

    async def settle(self) -> None:
        while await self.world.poll(self.stream):
            pass
        await self.world.execute_batches()
        await self.world.confirm(self.stream)

    def works(self) -> dict[str, Work]:
        return {
            "submit": self._submit_one,
            "poll": lambda: self.world.poll(self.stream),
            "execute": self.world.execute_batches,
            "confirm": lambda: self.world.confirm(self.stream),
            "overtake": self.overtake,
        }

    @rule(kinds=KINDS, crash=OWN_CRASH)
    def requests_are_submitted(self, kinds: list[bool], crash: Moment | None) -> None:
        self.do(self._submit(self.make(kinds), crash))

    @rule(faults=FAULTS, crash=CRASHES)
    def a_batch_is_pulled(self, faults: list[Fault], crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.poll(self.stream), faults, crash))

    @rule(faults=FAULTS, crash=CRASHES)
    def what_is_stored_is_confirmed(self, faults: list[Fault], crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.confirm(self.stream), faults, crash))

    @rule(crash=CRASHES)
    def what_arrived_is_executed(self, crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(self.world.execute_batches, crash=crash))

    async def _submit_one(self) -> None:
        await self._submit(self.make([True]), None)

    async def _submit(self, records: list[Record], crash: Moment | None) -> None:
        if crash is not None:
            self.world.commits[Network.REQUEST].crash_at(CrashPlan(1, crash))
        try:
            with self.world.clocks.of(Network.REQUEST):
                async with self.world.engines[Network.REQUEST].begin() as connection:
                    sealer = self.world.sealers[Network.REQUEST]
                    group = await sealer.seal(connection, self.stream, [one.body for one in records])
                    await store_submitted(connection, group, [_new_request(one.body) for one in records])
        except Crash as died:
            if died.moment is Moment.BEFORE:
                return
        self.committed(records)


def _new_request(body: bytes) -> NewRequest:
    loaded: dict[str, Any] = orjson.loads(body)

    return NewRequest(
        UUID(loaded["request_id"]), USER, "none", None, 5, b"{}", None, datetime(2026, 1, 2, tzinfo=UTC), None
    )
