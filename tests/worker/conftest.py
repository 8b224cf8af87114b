"""A world for each test: databases, a Temporal of its own, and no process left behind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from embedded.ports import free_port, free_ports
from embedded.supervisor import Supervisor
from embedded.temporal import temporal_spec
from embedded.terminal import Terminal
from tests.conftest import Networks
from tests.worker.processes import World


@pytest.fixture
async def temporal(tmp_path: Path) -> AsyncIterator[str]:
    """A Temporal server as `airlock up` runs it: its address."""
    ports = free_ports()
    supervisor = Supervisor(Terminal(), tmp_path / "logs")
    try:
        await supervisor.start(temporal_spec(tmp_path, ports))
        yield f"127.0.0.1:{ports.temporal}"
    finally:
        await supervisor.stop()


@pytest.fixture
async def world(networks: Networks, temporal: str, tmp_path: Path) -> AsyncIterator[World]:
    """Nothing runs in it yet."""
    room = tmp_path / "room"
    room.mkdir()
    world = World(networks, temporal, free_port(), room)
    try:
        yield world
    finally:
        await world.end()
