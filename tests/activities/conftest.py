"""The networks of these tests: databases made once, emptied before each test."""

from collections.abc import AsyncIterator

import httpx
import pytest

from cache.redis_cache import Cache
from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks
from tests.execution.service import Service, serving


@pytest.fixture(scope="session")
async def activities_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("activities") / "keys") as networks:
        yield networks


@pytest.fixture
async def networks(activities_networks: Networks) -> Networks:
    """Empty."""
    await empty(activities_networks)
    return activities_networks


@pytest.fixture
async def cache(networks: Networks) -> AsyncIterator[Cache]:
    """Redis, as the activities have it."""
    cache = Cache(networks.servers.redis_url)
    yield cache
    await cache.aclose()


@pytest.fixture
async def receiver() -> AsyncIterator[Service]:
    """What callbacks are made to."""
    async with serving() as service:
        service.answer(b"")
        yield service


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """As the worker makes it."""
    async with httpx.AsyncClient(follow_redirects=False, trust_env=False) as client:
        yield client
