"""Airlock, the plain routes and the Celery build, each complete, for the figures that use HTTP."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from bench.celery.profiles import PROFILES
from bench.celery.servers import pipeline
from bench.figures import LIMIT, OURS, RIVAL, NotMeasured
from bench.plain.servers import plain_routes
from chaos.running import Airlock

SERVERS = ("postgres", "redis", "temporal")
"""Processes that are third-party servers, not the contestant's own code."""
EVERY_DAY = {"export-settings": 60.0, "export-results": 120.0, "pull-requests": 1.0}
"""The Celery build's cadences, those of the old pipeline, in seconds."""
PROFILE = PROFILES["documented"]
"""The fastest profile: they differ in what Redis writes to disk, and this one writes least."""


@dataclass(frozen=True)
class Contestant:
    """A running contestant."""

    port: int
    """Port of the request API."""
    request_database: str
    response_database: str
    headers: Mapping[str, str] = field(default_factory=dict)
    pids: Callable[[], Mapping[str, int]] = dict
    """Pids of all its processes, `SERVERS` included."""
    redis_url: str = ""
    far: tuple[str, ...] = ()
    """Processes of the response network, which in production run on other machines."""

    crossed: str = ""
    """Query for the number of results that the request network received; one received twice counts as two."""
    temporal: str = ""
    """Address of the Temporal server, if there is one."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Suspend the response network's processes for the block."""
        groups = [pid for name, pid in self.pids().items() if name in self.far]
        try:
            for group in groups:
                os.killpg(group, signal.SIGSTOP)
            yield
        finally:
            for group in groups:
                with suppress(ProcessLookupError):
                    os.killpg(group, signal.SIGCONT)

    async def stored(self) -> int:
        """Number of requests in the request network's database."""
        return await ask(self.request_database, "SELECT count(*) FROM requests")

    async def differences(self, answered: int) -> list[str]:
        """Differences from the state in which each of ``answered`` requests went all the way exactly once."""
        counts = {
            "requests in the request network": await self.stored(),
            "results in the request network": await ask(self.request_database, "SELECT count(*) FROM results"),
            "requests in the response network": await ask(self.response_database, "SELECT count(*) FROM requests"),
            "results in the response network": await ask(self.response_database, "SELECT count(*) FROM results"),
            "results that crossed": await ask(self.request_database, self.crossed),
        }
        return [f"{found} {what} for {answered} answered" for what, found in counts.items() if found != answered]


Start = Callable[[Path], AbstractAsyncContextManager[Contestant]]
"""Starts a contestant in a new directory and stops it at the end."""


@asynccontextmanager
async def airlock(directory: Path) -> AsyncIterator[Contestant]:
    """`airlock up` with its default configuration."""
    running = Airlock(_made(directory), harmed=False)
    try:
        await running.start()
        up = running.up
        yield Contestant(
            int(up["request_api"].rsplit(":", 1)[1]),
            up["databases"]["request"],
            up["databases"]["response"],
            {"Authorization": f"Bearer {up['api_key']}"},
            lambda: {**running.up["processes"], "up": up["pid"]},
            up["redis"],
            ("response-api", "response-worker"),
            "SELECT coalesce(sum(records), 0) FROM received_batches WHERE stream = 'results'",
            up["temporal"],
        )
    finally:
        trouble = await running.stop()
    if trouble:
        raise NotMeasured(trouble)


@asynccontextmanager
async def celery(directory: Path, pull_every: float = 1.0) -> AsyncIterator[Contestant]:
    """The Celery build: both APIs, a worker of eight processes, and Beat. ``pull_every``: seconds between two pulls."""
    cadences = EVERY_DAY | {"pull-requests": pull_every}
    with (_made(directory) / "servers.log").open("w") as log:
        async with pipeline(directory / "home", PROFILE, log, cadences, harmed=False) as there:
            yield Contestant(
                int(there.request_url.rsplit(":", 1)[1]),
                there.databases.request,
                there.databases.response,
                {"Authorization": f"Bearer {there.api_key}"},
                there.supervisor.pids,
                far=("response-api", "celery-worker", "beat"),
                crossed="SELECT count(*) FROM arrivals",
            )


@asynccontextmanager
async def plain(directory: Path) -> AsyncIterator[Contestant]:
    """The plain routes."""
    with (_made(directory) / "servers.log").open("w") as log:
        async with plain_routes(directory / "home", log) as there:
            yield Contestant(there.port, there.databases.request, there.databases.response, redis_url=there.redis_url)


STARTS: Mapping[str, Start] = {OURS: airlock, LIMIT: plain, RIVAL: celery}


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True)
    return directory


async def ask(url: str, query: str) -> int:
    """The number that a query returns."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
