"""Both networks for the tests of the exchange: the databases are made once, and empty when a test begins."""

from collections.abc import AsyncIterator

import pytest

from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks


@pytest.fixture(scope="session")
async def kept_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("exchange") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(kept_networks: Networks) -> Networks:
    """Empty."""
    await empty(kept_networks)
    return kept_networks
