"""What may happen to any stream on its way, as rules of a Hypothesis state machine; afterwards the network heals.

https://hypothesis.readthedocs.io/en/latest/stateful.html
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from exchange.errors import BadSignature, Fork, Gap, LinkError, LinkPaused, Malformed, UnknownKey
from exchange.transfer import delivery
from exchange.transfer.outgoing import batch_after
from exchange.wire.batch import to_wire
from exchange.wire.manifest import Manifest
from exchange.wire.messages import Receipt
from models.streams import Network, StreamName
from tests.protocol.commits import CrashPlan, Moment
from tests.protocol.invariants import (
    Model,
    check_chain,
    check_prefix,
    check_receipts,
    emptied,
)
from tests.protocol.network import Fault
from tests.protocol.seen import Seen
from tests.protocol.world import LINK, Work, World

NETWORKS = st.sampled_from(list(Network))
FAULTS = st.lists(st.sampled_from(list(Fault)), max_size=4)
CRASHES = st.none() | st.tuples(
    NETWORKS, st.builds(CrashPlan, st.sampled_from([1, 1, 1, 2, 2, 2, 3, 4, 5, 6]), st.sampled_from(list(Moment)))
)
PICK = st.integers(0, 11)
JUMPS = st.sampled_from([-1e9, -86_400.0, -299.0, 0.0, 299.0, 86_400.0])
DAMAGE = st.sampled_from([*["none"] * 6, "manifest", "signature", "payload", "cut", "longer"])
SEED = 20_261_122
REFUSED = (BadSignature, UnknownKey, LinkPaused, Malformed)


class CrossingMachine(RuleBasedStateMachine):
    """One stream between two networks. A machine of a kind of stream adds what its two ends do."""

    stream: StreamName

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.model = Model()
        self.phantoms: list[bytes] = []
        self.sound = True
        self.do(world.begin(self.stream))

    def do(self, work: Awaitable[Any]) -> Any:
        """Do this on the world's loop."""
        try:
            return self.world.run(work)
        except BaseException as error:
            self.sound = False
            self.world.failures.append(error)
            raise

    # What a machine of a kind of stream says.

    async def check_records(self, seen: Seen) -> None:
        """Hold the records against what was committed."""
        raise NotImplementedError

    async def check_end(self, seen: Seen) -> None:
        """The same once all has arrived."""
        raise NotImplementedError

    async def settle(self) -> None:
        """Do what both ends do until nothing is left to do."""
        raise NotImplementedError

    async def overtake(self) -> None:
        """Another worker, quick and thorough: everything is delivered, applied and confirmed, and then forgotten."""
        await self.settle()
        check_chain(self.model, await self.world.look(self.stream))  # so that what is forgotten next was seen
        for network in Network:
            await self.world.retain_nothing(network)

    def record_for_phantom(self) -> bytes:
        return b'{"phantom":%d}' % self.model.moment()

    def works(self) -> dict[str, Work]:
        """What may go on at the same time as something else."""
        raise NotImplementedError

    # What never breaks.

    @invariant()
    def nothing_broke(self) -> None:
        self.do(self._check())

    async def _check(self) -> None:
        seen = await self.world.look(self.stream)
        assert not seen.stopped, f"nothing that happened here may stop the stream: {seen.stopped}"
        check_chain(self.model, seen)
        check_prefix(self.model, seen)
        check_receipts(self.model, seen, self.world.heard)
        await self.check_records(seen)

    def teardown(self) -> None:
        """The network heals: what is on its way arrives, and both ends go on until they are done."""
        if self.sound:
            self.world.heal()
            self.do(self._heal())

    async def _heal(self) -> None:
        for call in [*self.world.network.delayed, *self.world.network.past]:
            await self.world.network.bring(call)
        assert not self.world.network.broken, f"what came late broke the other side: {self.world.network.broken}"
        await self.settle()
        await self._check()
        await self.check_end(await self.world.look(self.stream))
        for network in Network:
            await self.world.retain_nothing(network)
        await self._check()
        seen = await self.world.look(self.stream)
        assert emptied(seen.sealed), "in the end retention must let go of every sealed payload"
        assert emptied(seen.received), "in the end retention must let go of every received payload"

    # What may happen.

    @rule(network=NETWORKS, seconds=JUMPS)
    def a_clock_jumps(self, network: Network, seconds: float) -> None:
        self.world.clocks.fast[network] = seconds

    @rule(network=NETWORKS, crash=CRASHES)
    def retention_forgets(self, network: Network, crash: tuple[Network, CrashPlan] | None) -> None:
        self.do(self.world.attempt(lambda: self.world.retain_nothing(network), crash=crash))

    @precondition(lambda self: self.world.network.delayed)
    @rule(pick=PICK)
    def a_late_call_arrives(self, pick: int) -> None:
        call = self.world.network.delayed.pop(pick % len(self.world.network.delayed))
        self.do(self.world.attempt(lambda: self.world.network.bring(call)))

    @precondition(lambda self: self.world.network.past)
    @rule(pick=PICK)
    def an_old_call_comes_again(self, pick: int) -> None:
        """Old batches, heartbeats, polls and receipts: all were true once, and none may do harm."""
        call = self.world.network.past[pick % len(self.world.network.past)]
        self.do(self.world.attempt(lambda: self.world.network.bring(call)))

    @precondition(lambda self: self.model.first_seen)
    @rule(pick=PICK, damage=DAMAGE)
    def a_sealed_batch_is_offered(self, pick: int, damage: str) -> None:
        """Any batch, at any time, whole or damaged before it was signed for its way."""
        self.world.clocks.heal()
        self.do(self._offer(1 + pick % len(self.model.first_seen), damage))

    async def _offer(self, sequence: int, damage: str) -> None:
        sealed = self.model.first_seen[sequence]
        assert sealed.payload is not None
        before = await self.world.look(self.stream)
        wire = damaged(to_wire(sealed.manifest, sealed.signature, sealed.payload), damage)
        if damage != "none":
            await self.must_be_refused(self.hand_over(wire), REFUSED, "a damaged batch must be refused")
            assert (await self.world.look(self.stream)) == before, "a damaged batch must change nothing"
        elif sequence > len(before.received) + 1:
            sentence = "a batch must be refused while one before it is missing"
            refused = await self.must_be_refused(self.hand_over(wire), (Gap,), sentence)
            assert refused.extra["expected"] == len(before.received) + 1, "a gap must name the batch expected"
        else:
            await self.hand_over(wire)
            stored = len((await self.world.look(self.stream)).received)
            assert stored == max(sequence, len(before.received)), "an accepted batch must be on disk, once"

    @rule(data=st.data(), network=NETWORKS, nth=st.integers(1, 5))
    def two_things_happen_at_once(self, data: st.DataObject, network: Network, nth: int) -> None:
        self.world.clocks.heal()
        works = self.works()
        first, second = (data.draw(st.sampled_from(sorted(works)), name) for name in ("first", "second"))
        self.do(self.world.overlap(works[first], network, nth, works[second]))

    @rule(count=st.integers(1, 2))
    def a_sealing_is_undone_after_it_was_seen(self, count: int) -> None:
        """What a sender restored from a backup would leave behind: signed batches of a history that is not."""
        self.do(self._seal_phantoms(count))

    async def _seal_phantoms(self, count: int) -> None:
        async with self.world.engines[self.stream.sender].connect() as connection:
            for _ in range(count):
                batch = await self.world.sealers[self.stream.sender].seal(
                    connection, self.stream, [self.record_for_phantom()]
                )
                stored = await batch_after(connection, self.stream, batch.epoch, batch.sequence - 1)
                assert stored is not None
                assert stored.payload is not None
                self.phantoms.append(to_wire(stored.manifest, stored.signature, stored.payload))
            await connection.rollback()

    @precondition(lambda self: self.phantoms)
    @rule(pick=PICK)
    def a_batch_of_another_history_is_offered(self, pick: int) -> None:
        self.world.clocks.heal()
        self.do(self._offer_phantom(self.phantoms[pick % len(self.phantoms)]))

    async def _offer_phantom(self, wire: bytes) -> None:
        seen = await self.world.look(self.stream)
        manifest = Manifest.model_validate_json(wire.partition(b"\n")[0])
        sequence, _, head = seen.cursor
        if manifest.sequence == sequence + 1 and manifest.previous == head.hex():
            return  # it is the history that the receiver has: only the sender can tell
        expected: type[LinkError] = Gap if manifest.sequence > sequence + 1 else Fork
        await self.must_be_refused(self.hand_over(wire), (expected,), "a batch of another history must be refused")
        assert (await self.world.look(self.stream)).received == seen.received, "and nothing of it may be stored"
        await self.world.resume(self.stream)

    @rule(ahead=st.integers(0, 2), whose=st.sampled_from(["nobody's", "ours"]))
    def a_receipt_of_another_history_comes(self, ahead: int, whose: str) -> None:
        """From a receiver restored from another's backup: rightly signed, and about batches that it does not have."""
        self.world.clocks.heal()
        self.do(self._false_receipt(ahead, whose))

    async def _false_receipt(self, ahead: int, whose: str) -> None:
        seen = await self.world.look(self.stream)
        sequence, _, head = seen.cursor
        false = sequence + ahead
        if whose == "ours" and ahead == 0:
            return  # that is the truth
        keys = self.world.receivers[self.stream.receiver].keys
        receipt = Receipt(
            link=LINK, stream=self.stream, epoch=1, received=false, applied=false, quarantined=0,
            head=head.hex() if whose == "ours" else "ab" * 32, key_id=keys.key_id,
        )  # fmt: skip
        await self.must_be_refused(self.hand_receipt(receipt), (Fork,), "a receipt of another history must be refused")
        await self.world.resume(self.stream)

    async def must_be_refused(
        self, work: Coroutine[Any, Any, None], expected: tuple[type[LinkError], ...], sentence: str
    ) -> LinkError:
        """Gives the error; raises `AssertionError` with this sentence unless it is one of those expected."""
        self.world.network.remembers = False
        try:
            await work
        except expected as error:
            return error
        finally:
            self.world.network.remembers = True
        raise AssertionError(sentence)

    # How things get to the other end.

    async def hand_over(self, wire: bytes) -> None:
        """Bring a batch to the stream's receiver, as its network has it done."""
        if self.stream.receiver is Network.REQUEST:
            await self.world.link.push(self.stream, wire)
        else:
            await self.world.receivers[Network.RESPONSE].accept(self.stream, wire)

    async def hand_receipt(self, receipt: Receipt) -> None:
        """Bring a receipt to the stream's sender, as its network has it done."""
        if self.stream.sender is Network.REQUEST:
            await self.world.link.send_receipt(self.stream, receipt)
        else:
            async with self.world.engines[Network.RESPONSE].begin() as connection:
                await delivery.accept_receipt(connection, self.stream, receipt)


def damaged(wire: bytes, damage: str) -> bytes:
    """A batch's bytes with something wrong in the part of that name."""
    first = wire.index(b"\n")
    second = wire.index(b"\n", first + 1)
    place = {"manifest": first // 2, "signature": first + 9, "payload": (second + len(wire)) // 2}.get(damage)
    if place is not None:
        return wire[:place] + bytes([wire[place] ^ 1]) + wire[place + 1 :]
    return {"none": wire, "cut": wire[:-1], "longer": wire + b"\0"}[damage]


def search(machine: Callable[[], CrossingMachine], examples: int, steps: int, begin: int = SEED) -> None:
    """Run the machine through so many examples, the same ones each time; raises what the first that fails raises.

    ``begin`` is the seed of the examples.
    """

    def fresh() -> CrossingMachine:
        return machine()

    run_state_machine_as_test(
        seed(begin)(fresh),  # type: ignore[arg-type]  # anything that makes one will do
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
