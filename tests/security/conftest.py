"""Both networks' APIs as processes of their own, with callers of every kind; started once."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from uuid_utils.compat import uuid7

from configuration.cadences import DEFAULT_CADENCES
from configuration.redis_url import redis_database
from embedded.databases import READER
from embedded.temporal import SEARCH_ATTRIBUTES, find_temporal
from exchange.carriers.http import LinkClient
from exchange.transfer.delivery import Delivery
from exchange.transfer.pulling import Pull
from exchange.transfer.receiving import Receiver
from exchange.wire.http_signature import HttpSigner
from models.streams import Network
from people.users import put_api_key, put_user
from sample.install import install
from schedules.sync import sync_schedules
from settings.setting_store import put_setting
from settings.snapshot import public_records
from tests.api_request.serving import User, publish
from tests.conftest import Networks, Servers
from tests.exchange.kept_networks import make_networks
from tests.link.conftest import app_url, crossing, kept_networks, kept_proxy
from tests.security.captured import Captured, capturing
from tests.security.processes import ApiProcess, api_process
from tests.verification.conftest import served, verification_networks, world
from tests.verification.world import World

__all__ = ["app_url", "crossing", "kept_networks", "kept_proxy", "served", "verification_networks", "world"]

LINK = "test"


@dataclass(frozen=True)
class Airlock:
    """Two APIs at work over real servers, without workers; ``users`` are callers that nobody else uses."""

    networks: Networks
    request: ApiProcess
    response: ApiProcess
    operator: User
    users: Iterator[User]


@pytest.fixture(scope="session")
async def temporal() -> AsyncIterator[WorkflowEnvironment]:
    """A real Temporal server with the four schedules."""
    attributes = [part for pair in SEARCH_ATTRIBUTES.items() for part in ("--search-attribute", "=".join(pair))]
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=find_temporal(),
        dev_server_extra_args=attributes,
        dev_server_log_level="error",
        data_converter=pydantic_data_converter,
    )
    async with environment:
        await sync_schedules(environment.client, DEFAULT_CADENCES)
        yield environment


@pytest.fixture(scope="session")
async def security_networks(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Networks]:
    """Made once."""
    async with make_networks(servers, tmp_path_factory.mktemp("security") / "keys") as networks:
        yield networks


@pytest.fixture(scope="session")
async def airlock(
    security_networks: Networks, temporal: WorkflowEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Airlock]:
    """The sample's request types, 120 users and an operator, known on both sides."""
    networks, home = security_networks, tmp_path_factory.mktemp("apis")
    side = networks.response
    await install(side.url, READER, home / "secrets")
    operator = User(uuid7(), "alk_the-operator", "operator")
    users = [User(uuid7(), f"alk_{uuid7()}") for _ in range(120)]
    async with side.engine.begin() as connection:
        for user in (operator, *users):
            user_id = await put_user(connection, user.user_id, f"somebody {user.user_id}", user.role)
            await put_api_key(connection, user_id, user.key, "test")
        await put_setting(connection, "banner", "Welcome", "public", "test")
        await put_setting(connection, "token", "not-for-you", "secret", "test")
        records = await public_records(connection)
    await publish(networks, records)
    told = {
        "temporal_address": temporal.client.service_client.config.target_host,
        "temporal_namespace": temporal.client.namespace,
        "link_id": LINK,
    }

    def about(network: Network, redis: int) -> dict[str, str]:
        mine = networks.request if network is Network.REQUEST else networks.response
        return told | {
            "database_url": mine.url,
            "redis_url": redis_database(networks.servers.redis_url, redis),
            "keys": str(mine.keys_directory),
        }

    sources = {"sample": networks.servers.databases.reader.rsplit("/", 1)[0] + "/" + side.url.rsplit("/", 1)[1]}
    async with (
        api_process("request", home, **about(Network.REQUEST, 8)) as request,
        api_process(
            "response",
            home,
            **about(Network.RESPONSE, 9),
            sources=json.dumps(sources),
            http_hosts='["search.example:9200"]',
            python_executors='["reports"]',
        ) as response,
    ):
        yield Airlock(networks, request, response, operator, iter(users))


@pytest.fixture
def user(airlock: Airlock) -> User:
    """A user of this test's own."""
    return next(airlock.users)


@dataclass
class Attacked:
    """The world as the response network sees it while the request network may be captured."""

    world: World
    captured: Captured


@pytest.fixture
async def attacked(world: World, served: str) -> AsyncIterator[Attacked]:
    """Honest until a test says what it lies about."""
    side = world.networks.response
    async with capturing(world.networks.request.keys, served) as captured:
        link = LinkClient(captured.url, HttpSigner(side.keys, LINK))
        seen = replace(
            world,
            link=link,
            pull=Pull(side.engine, Receiver(side.engine, side.keys, LINK), link),
            delivery=Delivery(side.engine, world.delivery.sealer, link),
        )
        yield Attacked(seen, captured)
        await link.aclose()
