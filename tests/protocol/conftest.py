"""The two networks of the protocol tests, made once."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Servers
from tests.protocol.world import World, open_world


@pytest.fixture(scope="module")
async def world(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """One for each module: what is patched in it concerns nobody else."""
    async with open_world(servers, tmp_path_factory.mktemp("protocol") / "keys") as opened:
        yield opened
