"""Both networks in this process, composed as in production: the API is served, the workers are created but not run.

Their activities are called one after the other, so that no count depends on timing. The workloads wait for states, not
for times.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment
from temporalio.worker import Worker
from uuid_utils.compat import uuid7

from api.listening import Listener
from api.request.app import create_app
from api.serving import served
from bench.counts.link_calls import LinkCalls
from bench.counts.servers import Servers
from bench.counts.wire import Statements
from configuration.cadences import DEFAULT_CADENCES
from configuration.redis_url import redis_database
from configuration.settings import RequestSettings, ResponseSettings
from embedded.ports import free_port
from exchange.wire.keys import ensure_link_keys
from execution.request_types import put_request_type
from models.requests import Limits
from models.streams import BatchRef, Network, StreamName
from orchestration.client import connect_temporal, sdk_runtime
from people.users import put_api_key, put_user
from storage.database import connect
from wiring.request_worker import request_worker
from wiring.response_worker import response_worker

KEY = "alk_of-the-user-who-counts"
MODULE = "bench.counts.functions"
PATIENCE = 60.0
"""Seconds after which waiting for a state fails: long, for a busy machine."""
RARELY = {name: {"every": 365 * 86400} for name in DEFAULT_CADENCES}


class NeverCame(Exception):
    """A state did not come in time."""


async def until(check: Callable[[], Awaitable[Any]], what: str) -> Any:
    """Wait until ``check`` returns something true, and return it. Raises `NeverCame`."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await check()):  # noqa: ASYNC110, servers tell nobody
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise NeverCame(f"not within {PATIENCE:g} s: {what}") from None
    return found


@dataclass(frozen=True)
class World:
    """Everything that the workloads use."""

    servers: Servers
    statements: Statements
    link: LinkCalls
    looks: dict[Network, "asyncpg.Connection[asyncpg.Record]"]
    """The measurement's own connections."""
    databases: dict[Network, str]
    """Names."""
    clients: dict[Network, Client]
    workers: dict[Network, Worker]
    caller: httpx.AsyncClient

    async def act(self, name: str, argument: Any = None, workflow_id: str | None = None) -> Any:
        """Run the activity of this name, in the workflow ``workflow_id`` if one is given."""
        environment = ActivityEnvironment()
        if workflow_id is not None:
            environment.info = dataclasses.replace(environment.info, workflow_id=workflow_id)
        return await environment.run(self.activity(name), *([] if argument is None else [argument]))

    def activity(self, name: str) -> Callable[..., Any]:
        """The activity of this name, of whichever worker has it."""
        every = [each for worker in self.workers.values() for each in worker.config()["activities"]]
        return next(each for each in every if getattr(each, "__name__", "") == name)

    async def value(self, network: Network, query: str, *arguments: Any) -> Any:
        """First value of a query that is not counted."""
        return await self.looks[network].fetchval(query, *arguments)

    async def unapplied(self, stream: StreamName) -> list[BatchRef]:
        """Batches that are received and not applied."""
        found = await self.looks[stream.receiver].fetch(
            "SELECT epoch, sequence, records FROM received_batches"
            " WHERE stream = $1 AND applied_at IS NULL ORDER BY epoch, sequence",
            stream,
        )
        return [BatchRef(stream=stream, epoch=one[0], sequence=one[1], records=one[2]) for one in found]

    async def submit(self, requests: Sequence[dict[str, Any]]) -> list[UUID]:
        """Submit a list of requests."""
        answer = await self.caller.post("/v1/requests", json=requests)
        answer.raise_for_status()
        return [UUID(each) for each in answer.json()["ids"]]

    async def all_pulled(self) -> None:
        """Return when everything submitted is stored on the other side and acknowledged, the workflow of each group is
        started, and the next poll waits.
        """

        async def settled() -> bool:
            delivered = await self.value(
                Network.REQUEST,
                "SELECT count(*) = 0 FROM outgoing_streams WHERE stream = 'requests' AND delivered < sequence",
            )
            started = await self.value(Network.REQUEST, "SELECT count(*) = 0 FROM request_groups WHERE seen_at IS NULL")
            waiting = [call.is_idle_poll for call in self.link.under_way] == [True]
            return delivered and started and waiting and not self.statements.in_flight

        await until(settled, "everything that was submitted is pulled")

    async def publish(self) -> None:
        """Send the user and the request types to the request network, and return when it has them."""
        await self.act("seal_settings")
        await self.act("deliver", StreamName.SETTINGS)
        for batch in await self.unapplied(StreamName.SETTINGS):
            await self.act("apply_and_attend", batch)
        await self.knows_the_user()

    async def knows_the_user(self) -> None:
        """Return when the request network accepts the caller's key."""

        async def is_known() -> bool:
            return (await self.caller.get("/v1/requests")).status_code == 200

        await until(is_known, "the request network knows the user")
        await self.all_pulled()

    async def install(self) -> None:
        """Create the user and the request types in the response network."""
        engine = connect(self.servers.templates.response.rsplit("/", 1)[0] + f"/{self.databases[Network.RESPONSE]}", 2)
        async with engine.begin() as connection:
            await put_api_key(connection, await put_user(connection, uuid7(), "counter", "user"), KEY, "counts")
            for name in ("constant", "kilobyte"):
                executor = {"kind": "python", "function": f"{MODULE}:{name}"}
                limits = Limits().model_dump()
                await put_request_type(connection, name, "", {"type": "object"}, limits, executor, "counts")
        await engine.dispose()


@asynccontextmanager
async def world(servers: Servers, root: Path, name: str, statements: Statements) -> AsyncIterator[World]:
    """A pair of networks, in the namespaces ``name-request`` and ``name-response``."""
    ensure_link_keys(root / name)
    port, link = free_port(), LinkCalls()
    url = f"http://127.0.0.1:{port}"
    databases = {network: f"{name}_{network}" for network in Network}
    common = {
        network: {
            "database_url": await servers.database(network, databases[network]),
            "redis_url": redis_database(servers.redis_url, place),
            "temporal_address": servers.temporal,
            "temporal_namespace": f"{name}-{network}",
            "keys": root / name / network,
            "link_id": "counts",
            "drain_seconds": 5.0,
        }
        for place, network in enumerate(Network)
    }
    request = RequestSettings.model_validate(common[Network.REQUEST])
    response = ResponseSettings.model_validate(
        common[Network.RESPONSE] | {"link_url": url, "python_executors": [MODULE], "cadences": RARELY}
    )
    async with AsyncExitStack() as stack:
        looks = {network: await servers.look(databases[network]) for network in Network}
        for look in looks.values():
            stack.push_async_callback(look.close)
        app = create_app(request)
        app.add_middleware(link.around)  # Starlette calls it with the app, like a class
        await stack.enter_async_context(served(app, [Listener("127.0.0.1", port)]))
        caller = await stack.enter_async_context(
            httpx.AsyncClient(
                base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=PATIENCE, trust_env=False
            )
        )
        await until(lambda: _serves(caller), "the API answers")
        runtime = sdk_runtime("ERROR")
        workers = {
            Network.RESPONSE: await stack.enter_async_context(response_worker(response, runtime)),
            Network.REQUEST: await stack.enter_async_context(request_worker(request, runtime)),
        }
        clients = {
            settings.network: await connect_temporal(settings, runtime, identity="bench")
            for settings in (request, response)
        }
        made = World(servers, statements, link, looks, databases, clients, workers, caller)
        await until(lambda: _is_listening(made), "the API listens to its database")
        await made.install()
        yield made


async def _serves(caller: httpx.AsyncClient) -> bool:
    try:
        return (await caller.get("/healthz")).status_code == 200
    except httpx.TransportError:
        return False


async def _is_listening(made: World) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"
    return bool(await made.value(Network.REQUEST, query)) and any(
        call.path == "/link/v1/keys" and call.status == 200 for call in made.link.calls
    )
