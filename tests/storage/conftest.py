"""The networks of these tests: databases made once, emptied before each test."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks


@pytest.fixture(scope="session")
async def storage_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("storage") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(storage_networks: Networks) -> Networks:
    """Empty."""
    await empty(storage_networks)
    return storage_networks
