"""What never breaks, in words, held against what both databases say."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from exchange.wire.batch import unpack
from exchange.wire.manifest import Manifest, hash_of
from exchange.wire.messages import Receipt
from models.streams import GENESIS
from tests.protocol.seen import Received, Sealed, Seen


@dataclass(frozen=True)
class Record:
    """A committed record: its place among all moments of the example, and whether it can be applied."""

    body: bytes
    inserted: int
    committed: int
    good: bool = True


@dataclass
class Model:
    """All that a stream's two ends are compared with: what was committed, and what was seen before."""

    committed: list[Record] = field(default_factory=list)
    first_seen: dict[int, Sealed] = field(default_factory=dict)
    delivered: int = 0
    received: int = 0
    _moment: int = 0

    def moment(self) -> int:
        """The next moment of the example."""
        self._moment += 1
        return self._moment

    def records(self, sequence: int) -> list[bytes]:
        """The records of a batch, as they were sealed."""
        sealed = self.first_seen[sequence]
        assert sealed.payload is not None
        return unpack(Manifest.model_validate_json(sealed.manifest), sealed.payload)


def check_chain(model: Model, seen: Seen) -> None:
    """The sender's batches: numbered, chained, and never changed once they are sealed."""
    assert [batch.sequence for batch in seen.sealed] == list(range(1, len(seen.sealed) + 1)), (
        "sealed batches must be numbered without a gap"
    )
    previous, record = GENESIS, 0
    for batch in seen.sealed:
        first = model.first_seen.setdefault(batch.sequence, batch)
        assert first.payload is not None, f"batch {batch.sequence} must be sealed with a payload"
        same = (batch.manifest, batch.signature) == (first.manifest, first.signature)
        assert same, f"the sealed bytes of batch {batch.sequence} must never change"
        assert batch.payload in (None, first.payload), f"the payload of batch {batch.sequence} must never change"
        manifest = Manifest.model_validate_json(batch.manifest)
        assert manifest.previous == previous.hex(), f"batch {batch.sequence} must carry the hash of the one before"
        assert manifest.first_record == record + 1, f"batch {batch.sequence} must begin after the record before"
        previous, record = hash_of(batch.manifest), manifest.last_record
        assert batch.hash == previous, f"the stored hash of batch {batch.sequence} must be that of its manifest"
    assert set(model.first_seen) <= {batch.sequence for batch in seen.sealed}, "a sealed batch must never vanish"
    assert seen.head == (len(seen.sealed), record, previous), "the sender's head must be its newest batch"


def check_prefix(model: Model, seen: Seen) -> None:
    """The receiver's chain is a prefix of the sender's, byte for byte, and its cursor stands at the end of it."""
    assert [batch.sequence for batch in seen.received] == list(range(1, len(seen.received) + 1)), (
        "received batches must be an unbroken run from the first"
    )
    assert len(seen.received) <= len(seen.sealed), "the receiver must not have batches that were never sealed"
    for got, sealed in zip(seen.received, seen.sealed, strict=False):
        first = model.first_seen[sealed.sequence]
        assert (got.manifest, got.signature, got.hash) == (first.manifest, first.signature, sealed.hash), (
            f"the receiver's batch {got.sequence} must be the sender's"
        )
        assert got.payload in (None, first.payload), f"the receiver's payload {got.sequence} must be the sender's"
        assert got.payload is not None or got.applied, f"batch {got.sequence} must not be emptied before it is applied"
    last = seen.sealed[len(seen.received) - 1] if seen.received else None
    record = Manifest.model_validate_json(last.manifest).last_record if last else 0
    assert seen.cursor == (len(seen.received), record, last.hash if last else GENESIS), (
        "the receiver's cursor must stand at its newest batch"
    )
    assert len(seen.received) >= model.received, "a batch that was received must never vanish"
    model.received = len(seen.received)


def check_receipts(model: Model, seen: Seen, heard: Iterable[Receipt]) -> None:
    """Delivered is what a receipt covered; only that may be forgotten."""
    stored = len(seen.received)
    assert seen.delivered >= model.delivered, "what is delivered must only ever grow"
    assert seen.delivered <= stored, f"{seen.delivered} are marked delivered, but the receiver has {stored} on disk"
    model.delivered = seen.delivered
    for receipt in heard:
        assert receipt.received <= stored, "an acceptance must not be heard before the batch is on the receiver's disk"
    applied = _unbroken(batch.applied for batch in seen.received)
    assert seen.applied <= applied, "the receiver must not say that it applied what it has not"
    assert seen.said_applied <= applied, "the sender must not believe to be applied what is not"
    for batch in seen.sealed:
        assert batch.delivered == (batch.sequence <= seen.delivered), (
            f"batch {batch.sequence} must be marked delivered when, and only when, a receipt covers it"
        )
        assert batch.payload is not None or batch.sequence <= min(seen.delivered, applied), (
            f"the payload of batch {batch.sequence} was emptied before a receipt confirmed that it is applied"
        )


def check_custody(model: Model, seen: Seen, applied: Sequence[bytes]) -> None:
    """Every committed record is exactly one of pending, in flight, applied, quarantined; in order."""
    in_batches = [body for batch in seen.sealed for body in model.records(batch.sequence)]
    committed = {record.body: record for record in model.committed}
    held = Counter([*in_batches, *seen.outbox])
    lost = set(committed) - set(held)
    assert not lost, f"{len(lost)} committed records are neither pending nor sealed: {sorted(lost)[:3]}"
    assert not set(held) - set(committed), "nothing may be pending or sealed that was never committed"
    assert max(held.values(), default=1) == 1, "a record must not be sealed twice, nor be pending once it is sealed"
    _check_order(committed, [*in_batches, *seen.outbox])
    done = {batch.sequence for batch in seen.received if batch.applied}
    ended = Counter([*applied, *seen.quarantined])
    assert max(ended.values(), default=1) == 1, "a record must not be applied twice, nor applied and quarantined"
    for batch in seen.sealed:
        for body in model.records(batch.sequence):
            if batch.sequence in done:
                assert ended[body], f"a record of batch {batch.sequence} is neither applied nor quarantined"
                assert (body in applied) == committed[body].good, "what can be applied is, what cannot be is set aside"
    everything = {body for number in range(1, len(seen.received) + 1) for body in model.records(number)}
    assert set(ended) <= everything, "nothing may be applied or set aside that has not arrived"


def check_all_delivered(seen: Seen) -> None:
    """After the network has healed: nothing is pending or in flight any more."""
    count = len(seen.sealed)
    assert not seen.outbox, "once the network has healed, nothing may stay pending"
    ends = (len(seen.received), seen.delivered, seen.applied, seen.said_applied)
    assert ends == (count,) * 4, f"once the network has healed, {count} batches must be everywhere, not {ends}"


def check_all_applied(model: Model, seen: Seen, applied: Sequence[bytes]) -> None:
    """After the network has healed: every record has come to its end."""
    good = [record.body for record in model.committed if record.good]
    assert sorted(applied) == sorted(good), "in the end exactly what can be applied must be applied"
    bad = [record.body for record in model.committed if not record.good]
    assert sorted(seen.quarantined) == sorted(bad), "in the end exactly what cannot be applied must be set aside"


def emptied(batches: Sequence[Sealed | Received]) -> bool:
    return all(batch.payload is None for batch in batches)


def _check_order(committed: dict[bytes, Record], stream: Sequence[bytes]) -> None:
    latest = 0
    last_of: dict[int, int] = {}
    for body in stream:
        record = committed[body]
        assert record.inserted > last_of.get(record.committed, 0), "records of one transaction must keep their order"
        last_of[record.committed] = record.inserted
        assert record.committed > latest, "what was committed before another began must stand before it in the stream"
        latest = max(latest, record.inserted)


def _unbroken(flags: Iterable[bool]) -> int:
    count = 0
    for flag in flags:
        if not flag:
            break
        count += 1
    return count
