"""Starts and stops all parts of `airlock up`, in order; parts that do not depend on each other at the same time."""

import asyncio
import importlib
import os
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from configuration.home import CLONE, dotenv_variables
from embedded import ports
from embedded.applications import Surroundings, api_spec, worker_spec
from embedded.databases import READER, Databases, create_databases
from embedded.home import Home
from embedded.postgres import Postgres
from embedded.redis import Redis
from embedded.supervisor import Supervisor
from embedded.temporal import NAMESPACES, temporal_spec
from embedded.terminal import Terminal
from models.errors import describe

WORKERS_STOP, APIS_STOP, TEMPORAL_STOPS, STORES_STOP = range(4)
"""Stop order: workers first, databases last."""
PORTS_PATIENCE = 10.0
"""Seconds until the processes of a killed `up` must have released their ports."""


class SampleAccess(Protocol):
    """The keys that `sample.install.install` makes."""

    @property
    def api_key(self) -> str:
        """Of the sample user, for the request network."""

    @property
    def operator_key(self) -> str:
        """Of the sample operator, for the response network."""


class Boot:
    """One start of all parts in one home."""

    def __init__(self, home: Home, terminal: Terminal, *, free_ports: bool, redis_tcp: bool, samples: bool) -> None:
        self._home = home
        self._terminal = terminal
        self._free_ports = free_ports
        self._redis_tcp = redis_tcp
        self._samples = samples
        self._up: dict[str, Any] | None = None
        self.supervisor = Supervisor(terminal, home.logs, self._on_change)
        self.environment = {**dotenv_variables(), **os.environ}

    async def run(self) -> dict[str, Any]:
        """Start all parts and write `up.json`; returns its content."""
        started = time.monotonic()
        chosen = await self._choose_ports()
        self._home.say_who_holds_it(f"http://127.0.0.1:{chosen.request}")
        root, redis = self._home.root, Redis(self._home, chosen.redis)
        databases, *_ = await together(
            self._databases(chosen.postgres),
            self.supervisor.start(redis.spec(STORES_STOP)),
            self.supervisor.start(temporal_spec(root, chosen, TEMPORAL_STOPS)),
            asyncio.to_thread(self._make_keys),
        )
        where = Surroundings(CLONE, root, chosen, databases, redis.url, self.environment)
        access, _ = await together(self._response_network(where), self._start("request", where))
        if self._samples:
            await self._run_samples(where, access)
        self._up = self._addresses(where, access)
        if redis.tcp_url is not None:
            self._up["redis_tcp"] = redis.tcp_url
        self._on_change()
        self._terminal.say(f"Airlock is up after {time.monotonic() - started:.1f} s.")
        return self._up | {"processes": self.supervisor.pids()}

    async def _choose_ports(self) -> ports.Ports:
        stale = self._home.take_stale_up_file()
        environment = dict(self.environment)
        if self._redis_tcp:
            environment[ports.variable("redis")] = environment.get(ports.variable("redis")) or str(ports.REDIS)
        if self._free_ports:
            return ports.free_ports(*ports.asked_for(environment))
        chosen = ports.configured_ports(environment)
        deadline = time.monotonic() + (PORTS_PATIENCE if stale else 0)
        while ports.taken_ports(chosen) and time.monotonic() < deadline:  # noqa: ASYNC110, ports send no event
            await asyncio.sleep(0.1)
        ports.check_free(chosen)
        return chosen

    async def _databases(self, port: int | None) -> Databases:
        postgres = Postgres(self._home, port)

        async def serve() -> Databases:
            await postgres.initialise()
            await self.supervisor.start(postgres.spec(STORES_STOP))
            return await create_databases(postgres, self._home)

        # The imports of the migrations take as long as the server's start: do both at the same time.
        databases: Databases
        databases, migrate = await together(serve(), asyncio.to_thread(importlib.import_module, "storage.migrate"))
        for network, url in (("request", databases.request), ("response", databases.response)):
            await migrate.upgrade(url, network)
        return databases

    def _make_keys(self) -> None:
        from exchange.wire.keys import ensure_link_keys

        ensure_link_keys(self._home.keys)

    async def _response_network(self, where: Surroundings) -> SampleAccess:
        install = (await asyncio.to_thread(importlib.import_module, "sample.install")).install
        access: SampleAccess = await install(where.databases.response, READER, self._home.secrets)
        await self._start("response", where)
        return access

    async def _start(self, network: str, where: Surroundings) -> None:
        await self.supervisor.start(api_spec(network, where, APIS_STOP), worker_spec(network, where, WORKERS_STOP))

    async def _run_samples(self, where: Surroundings, access: SampleAccess) -> None:
        run_samples = importlib.import_module("sample.requests").run_samples
        try:
            await run_samples(where.request_api, access.api_key)
        except Exception as error:  # everything runs, so keep it running
            self._terminal.say(f"The sample requests failed: {describe(error)}", bad=True)

    def _addresses(self, where: Surroundings, access: SampleAccess) -> dict[str, Any]:
        return {
            "request_api": where.request_api,
            "response_api": where.response_api,
            "temporal": f"127.0.0.1:{where.ports.temporal}",
            "temporal_ui": f"http://127.0.0.1:{where.ports.temporal_ui}",
            "namespaces": {name: name for name in NAMESPACES},
            "redis": where.redis,
            "databases": {"request": where.databases.request, "response": where.databases.response},
            "api_key": access.api_key,
            "operator_key": access.operator_key,
            "sources": where.sources,
            "home": str(where.home),
            "pid": os.getpid(),
        }

    def _on_change(self) -> None:
        """Write the new pid of a process to `up.json`, if that exists."""
        if self._up is not None:
            self._home.write_up_file(self._up | {"processes": self.supervisor.pids()})

    async def stop(self) -> None:
        """Delete `up.json` and stop all parts in order."""
        self._up = None
        self._home.remove_up_file()
        await self.supervisor.stop()


async def together(*parts: Coroutine[Any, Any, Any]) -> list[Any]:
    """Run at the same time and return the results. If one fails, the others are cancelled and its error is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in parts]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
