"""The networks of these tests: shared databases, emptied before each test."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Networks, Servers
from tests.storage.emptying import empty, shared_networks


@pytest.fixture(scope="session")
async def activity_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    async with shared_networks(servers, tmp_path_factory.mktemp("activities") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(activity_networks: Networks) -> Networks:
    """Both networks, empty."""
    await empty(activity_networks.request)
    await empty(activity_networks.response)
    return activity_networks
