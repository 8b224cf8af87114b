"""The request network's API, served once for all tests without Temporal; each test has users of its own."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.api_request.serving import AIRPORT, ANYTHING, User, new_user, publish, serving, setting, settings_for
from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import empty, make_networks


@dataclass
class Api:
    """The served app and who may call it."""

    url: str
    networks: Networks
    users: Iterator[User]
    operator: User
    records: list[bytes] = field(default_factory=list)
    """The settings snapshot of every user and request type."""

    def user(self) -> User:
        """One that nobody else uses."""
        return next(self.users)

    async def publish(self, *more: bytes) -> int:
        """A newer snapshot, with these records besides."""
        return await publish(self.networks, [*self.records, *more])


@pytest.fixture(scope="session")
async def kept_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once; never emptied."""
    async with make_networks(servers, tmp_path_factory.mktemp("api") / "keys") as networks:
        yield networks


@pytest.fixture(scope="session")
async def api(kept_networks: Networks) -> AsyncIterator[Api]:
    """Served once."""
    users, operator = [new_user() for _ in range(300)], new_user("operator")
    records = [AIRPORT, ANYTHING, setting("colour", "blue"), operator.record(), *(user.record() for user in users)]
    await publish(kept_networks, records)
    async with serving(settings_for(kept_networks)) as url:
        yield Api(url, kept_networks, iter(users), operator, records)


@pytest.fixture
def user(api: Api) -> User:
    """A user of this test's own."""
    return api.user()


@pytest.fixture
async def http(api: Api, user: User) -> AsyncIterator[httpx.AsyncClient]:
    """Calls with the key of `user`."""
    async with user.calls(api.url) as client:
        yield client


@pytest.fixture(scope="session")
async def other_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once, emptied by `fresh`."""
    async with make_networks(servers, tmp_path_factory.mktemp("fresh") / "keys") as networks:
        yield networks


@pytest.fixture
async def fresh(other_networks: Networks) -> Networks:
    """Databases with nothing in them."""
    await empty(other_networks)
    return other_networks
