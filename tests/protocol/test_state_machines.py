"""Sender and receiver, driven through all that may happen between them, against a simple model.

The machines run in a thread of their own; their work is done on the tests' loop, which owns the connections. The same
examples are tried each time. To try others, change the seed in `tests.protocol.machine.search`.
"""

import asyncio

import pytest

from tests.protocol.logs import PulledLog, PushedLog
from tests.protocol.machine import CrossingMachine, search
from tests.protocol.snapshots import SnapshotMachine
from tests.protocol.world import World


@pytest.mark.parametrize(("machine", "examples"), [(PushedLog, 25), (PulledLog, 25), (SnapshotMachine, 15)])
async def test_whatever_happens_between_them_both_sides_keep_their_word(
    world: World, machine: type[CrossingMachine], examples: int
) -> None:
    await asyncio.to_thread(search, lambda: machine(world), examples, 25)
