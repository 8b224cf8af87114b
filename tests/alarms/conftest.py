"""Both networks, emptied before each test."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks


@pytest.fixture(scope="session")
async def alarm_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("alarms") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(alarm_networks: Networks) -> Networks:
    """Empty."""
    await empty(alarm_networks)
    return alarm_networks
