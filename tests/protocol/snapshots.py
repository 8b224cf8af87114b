"""A machine of a snapshot stream: the newest batch replaces what came before, and what has not changed is not sent."""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from models.streams import Network, StreamName
from tests.protocol.commits import Crash, CrashPlan, Moment
from tests.protocol.invariants import check_all_delivered
from tests.protocol.machine import CRASHES, FAULTS, CrossingMachine
from tests.protocol.network import Fault
from tests.protocol.seen import Seen
from tests.protocol.world import Work, World

CONTENTS = st.lists(st.integers(1, 5), max_size=5, unique=True).map(sorted)
"""Settings by number; more than three of them need two batches."""


class SnapshotMachine(CrossingMachine):
    """Settings change, are sealed whole, and are shown whole at the other end."""

    stream = StreamName.SETTINGS

    def __init__(self, world: World) -> None:
        self.whole: dict[int, list[bytes]] = {}
        """Every snapshot that was sealed, by the number of its last batch."""
        self.shown = 0
        super().__init__(world)

    async def check_records(self, seen: Seen) -> None:
        if seen.snapshot is not None:
            number, records = seen.snapshot
            assert number in self.whole, "a snapshot must be shown whole, or not at all"
            assert records == b"\n".join(self.whole[number]), f"snapshot {number} must be shown as it was sealed"
            assert number >= self.shown, "a snapshot must never be replaced by an older one"
            self.shown = number
        for batch in seen.received:
            if batch.applied and not batch.superseded:
                assert batch.sequence <= self.shown, "a snapshot that was applied must be shown, unless a newer one is"
        assert not seen.quarantined, "nothing in these snapshots deserves to be set aside"

    async def check_end(self, seen: Seen) -> None:
        check_all_delivered(seen)
        if self.whole:
            assert self.shown == max(self.whole), "once the network has healed, the newest snapshot must be shown"

    async def settle(self) -> None:
        for _ in range(2):
            await self.world.drain(self.stream)
            await self.world.import_batches(self.stream)
        await self.world.drain(self.stream)

    def record_for_phantom(self) -> bytes:
        return setting(self.model.moment())

    @rule(content=CONTENTS, crash=st.none() | st.none() | st.sampled_from(list(Moment)))
    def settings_are_sealed(self, content: list[int], crash: Moment | None) -> None:
        self.do(self._seal([setting(number) for number in content], crash))

    @rule(faults=FAULTS, crash=CRASHES)
    def the_stream_is_drained(self, faults: list[Fault], crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.drain(self.stream), faults, crash))

    @rule(crash=CRASHES)
    def what_arrived_is_applied(self, crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.import_batches(self.stream), crash=crash))

    def works(self) -> dict[str, Work]:
        return {
            "drain": lambda: self.world.drain(self.stream),
            "apply": lambda: self.world.import_batches(self.stream),
            "seal one": lambda: self._seal([setting(1)], None),
            "seal other": lambda: self._seal([setting(number) for number in range(2, 6)], None),
            "overtake": self.overtake,
        }

    async def _seal(self, records: list[bytes], crash: Moment | None) -> None:
        """Seal a snapshot; it is none of ours if it was undone, and none at all if it is the newest one already."""
        if crash is not None:
            self.world.commits[Network.RESPONSE].crash_at(CrashPlan(1, crash))
        try:
            async with self.world.engines[Network.RESPONSE].begin() as connection:
                sealer = self.world.sealers[Network.RESPONSE]
                batches = await sealer.seal_snapshot(connection, self.stream, records)
                before = [number for number in self.whole if not batches or number < batches[0].sequence]
                same = self.whole[max(before)] == records if before else False
                assert same == (not batches), "a snapshot must be sealed when it has changed, and only then"
                self._may_be(batches[-1].sequence if batches else 0, records)
        except Crash as died:
            if died.moment is Moment.BEFORE:
                self.whole.pop(batches[-1].sequence if batches else 0, None)

    def _may_be(self, last: int, records: list[bytes]) -> None:
        """Noted before the commit, since whoever waits for it may go on before we do."""
        if last:
            self.whole[last] = records


def setting(number: int) -> bytes:
    """A record of the settings stream."""
    return b'{"kind":"setting","name":"s%d","value":%d,"version":1}' % (number, number)
