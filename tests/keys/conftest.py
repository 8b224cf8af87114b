"""Each test gets networks of its own: keys that were rotated are not put back."""

from collections.abc import AsyncIterator

import pytest

import exchange.link_keys.rotation
from tests.api_request.serving import serving, settings_for
from tests.conftest import Networks
from tests.keys.world import World, opened


@pytest.fixture(autouse=True)
def _settles_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process has not seen yet it looks up when it meets it: the pause only spares that."""
    monkeypatch.setattr(exchange.link_keys.rotation, "SETTLE_SECONDS", 0.0)


@pytest.fixture
async def world(networks: Networks) -> AsyncIterator[World]:
    """One process of the request network's API."""
    async with serving(settings_for(networks)) as url, opened(networks, url) as world:
        yield world


@pytest.fixture
async def two_processes(networks: Networks) -> AsyncIterator[World]:
    """Two of them, which share the database and the key directory."""
    async with (
        serving(settings_for(networks)) as one,
        serving(settings_for(networks)) as other,
        opened(networks, one, other) as world,
    ):
        yield world
