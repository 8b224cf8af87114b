"""The state machines are worth something: each protection that is taken away makes them fail."""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis.errors import Flaky
from hypothesis.stateful import RULE_MARKER
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.request import link_routes
from exchange.transfer import delivery, receiving, sealing
from exchange.transfer.incoming import IncomingStream, ReceivedBatch, incoming_stream, store_received
from exchange.transfer.outgoing import OutgoingStream, hash_at
from exchange.transfer.receiving import Acceptance, Receiver
from exchange.wire.batch import SealedBatch
from exchange.wire.messages import Receipt
from models.streams import Network, StreamName
from monitoring import retention
from storage.database import execute
from tests.protocol.logs import PulledLog, PushedLog
from tests.protocol.machine import SEED, CrossingMachine, search
from tests.protocol.snapshots import SnapshotMachine
from tests.protocol.world import Work, World

EXAMPLES, STEPS = 200, 12
"""More than any of these needs."""

TakeAway = Callable[[World, pytest.MonkeyPatch], None]


async def _no_lock(_connection: AsyncConnection, _stream: StreamName) -> None:
    """Everybody goes ahead."""


def lock_of_sealers(_: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sealing, "lock_sealing", _no_lock)


def lock_of_receivers(_: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(receiving, "lock_receiving", _no_lock)


def check_of_the_chain(_: World, patch: pytest.MonkeyPatch) -> None:
    async def same(
        _self: Receiver, _connection: AsyncConnection, _cursor: IncomingStream, _sealed: SealedBatch
    ) -> None:
        """Whatever it is, it belongs to our history."""

    patch.setattr(Receiver, "_fork_reason", same)


def check_for_gaps(_: World, patch: pytest.MonkeyPatch) -> None:
    store = Receiver._store

    async def anywhere(
        self: Receiver, connection: AsyncConnection, cursor: IncomingStream, opened: Sequence[SealedBatch]
    ) -> Acceptance:
        """As if every later batch were the next."""
        first = opened[0].manifest
        if first.sequence > cursor.sequence:
            before = bytes.fromhex(first.previous)
            cursor = replace(cursor, sequence=first.sequence - 1, record=first.first_record - 1, hash=before)
        return await store(self, connection, cursor, opened)

    patch.setattr(Receiver, "_store", anywhere)


def cursor_in_the_same_transaction(world: World, patch: pytest.MonkeyPatch) -> None:
    store = store_received

    async def in_two(
        connection: AsyncConnection, stream: StreamName, batches: Sequence[tuple[ReceivedBatch, bytes]]
    ) -> None:
        """The batch in a transaction of its own, the cursor in the caller's."""
        async with world.engines[Network.REQUEST].begin() as first:
            before = await incoming_stream(first, stream)
            await store(first, stream, batches)
            await _move(first, stream, before.sequence, before.record, before.hash)
        batch, batch_hash = batches[-1]
        await _move(connection, stream, batch.sequence, batch.first_record + batch.records - 1, batch_hash)

    patch.setattr(receiving, "store_received", in_two)


async def _move(connection: AsyncConnection, stream: StreamName, sequence: int, record: int, hash_: bytes) -> None:
    await execute(
        connection,
        "UPDATE incoming_streams SET sequence = :sequence, record = :record, hash = :hash WHERE stream = :stream",
        stream=stream,
        sequence=sequence,
        record=record,
        hash=hash_,
    )


def receipt_before_deletion(_: World, patch: pytest.MonkeyPatch) -> None:
    everything = "UPDATE sealed_batches SET payload = NULL WHERE payload IS NOT NULL AND :age = :age AND :chunk > 0"
    patch.setattr(retention, "_EMPTY_SEALED", everything.replace(":age = :age", ":age >= 0"))


def check_of_receipts(_: World, patch: pytest.MonkeyPatch) -> None:
    accept = delivery.accept_receipt

    async def believe(connection: AsyncConnection, stream: StreamName, receipt: Receipt) -> OutgoingStream:
        """As if every receipt spoke of our history."""
        ours = await hash_at(connection, stream, receipt.epoch, receipt.received) or bytes(32)
        return await accept(connection, stream, receipt.model_copy(update={"head": ours.hex()}))

    for module in (delivery, link_routes):
        patch.setattr(module, "accept_receipt", believe)


SEEDS: dict[TakeAway, int] = {cursor_in_the_same_transaction: 20_261_126, receipt_before_deletion: 20_261_126}
"""Of what needs few examples by this seed, and up to a hundred by others."""

COMMIT, SUBMIT, SEAL = "results_are_committed", "requests_are_submitted", "pending_records_are_sealed"
DRAIN, PULL, FORGET = "the_stream_is_drained", "a_batch_is_pulled", "retention_forgets"
AT_ONCE, UNDO, OTHER_BATCH, OTHER_RECEIPT, OFFER = (
    "two_things_happen_at_once", "a_sealing_is_undone_after_it_was_seen", "a_batch_of_another_history_is_offered",
    "a_receipt_of_another_history_comes", "a_sealed_batch_is_offered",
)  # fmt: skip


def focused(machine: type[CrossingMachine], rules: set[str], works: set[str]) -> type[CrossingMachine]:
    """The same machine with all of its invariants, doing fewer things, so that it finds one of them sooner."""

    others = {name: None for name, found in vars_of(machine).items() if name not in rules and is_rule(found)}

    def chosen(self: CrossingMachine) -> dict[str, Work]:
        return {name: work for name, work in machine.works(self).items() if name in works}

    return type(f"Focused{machine.__name__}", (machine,), {**others, "works": chosen})


def vars_of(machine: type[CrossingMachine]) -> dict[str, object]:
    """All attributes, inherited ones too."""
    return {name: getattr(machine, name) for name in dir(machine)}


def is_rule(found: object) -> bool:
    return hasattr(found, RULE_MARKER)


@pytest.mark.parametrize(
    ("take_away", "machine", "rules", "works", "sentence"),
    [
        (lock_of_sealers, PulledLog, {AT_ONCE}, {"submit"}, "duplicate key"),
        (lock_of_sealers, SnapshotMachine, {AT_ONCE}, {"seal one", "seal other"}, "duplicate key|when it has changed"),
        (lock_of_receivers, PushedLog, {COMMIT, AT_ONCE}, {"drain"}, "at the same time broke"),
        (check_of_the_chain, PushedLog, {COMMIT, DRAIN, UNDO, OTHER_BATCH}, set(), "another history"),
        (check_of_the_chain, PulledLog, {SUBMIT, PULL, UNDO, OTHER_BATCH}, set(), "another history"),
        (check_for_gaps, PushedLog, {COMMIT, SEAL, OFFER}, set(), "while one before it is missing"),
        (cursor_in_the_same_transaction, PushedLog, {COMMIT, DRAIN}, set(), "unbroken|cursor|broke by itself"),
        (receipt_before_deletion, PushedLog, {COMMIT, SEAL, FORGET}, set(), "before a receipt confirmed"),
        (receipt_before_deletion, PulledLog, {SUBMIT, FORGET}, set(), "before a receipt confirmed"),
        (check_of_receipts, PushedLog, {COMMIT, DRAIN, OTHER_RECEIPT}, set(), "receipt of another history"),
        (check_of_receipts, PulledLog, {SUBMIT, PULL, OTHER_RECEIPT}, set(), "receipt of another history"),
    ],
)
async def test_a_machine_fails_without(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    take_away: TakeAway,
    machine: type[CrossingMachine],
    rules: set[str],
    works: set[str],
    sentence: str,
) -> None:
    small = focused(machine, rules, works)
    await asyncio.to_thread(search, lambda: small(world), 2, STEPS)
    take_away(world, monkeypatch)
    world.failures.clear()
    with pytest.raises((AssertionError, IntegrityError, Flaky)):  # without locks, what fails may not fail every time
        await asyncio.to_thread(search, lambda: small(world), EXAMPLES, STEPS, SEEDS.get(take_away, SEED))
    assert any(re.search(sentence, str(failure)) for failure in world.failures), world.failures
