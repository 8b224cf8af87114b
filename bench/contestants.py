"""Airlock, the plain routes and the Celery build, each whole and by itself, as figures that ask by HTTP see them."""

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
"""Processes that are not the contestants' own."""
EVERY_DAY = {"export-settings": 60.0, "export-results": 120.0, "pull-requests": 1.0}
"""The Celery build's cadences as they were in the pipeline of old, in seconds."""
PROFILE = PROFILES["documented"]
"""No profile is faster: they differ in what Redis writes to its disk, and this one writes least."""


@dataclass(frozen=True)
class Contestant:
    """One that runs."""

    port: int
    """Of the API that callers ask."""
    request_database: str
    response_database: str
    headers: Mapping[str, str] = field(default_factory=dict)
    pids: Callable[[], Mapping[str, int]] = dict
    """Of everything that it consists of, `SERVERS` among them."""
    redis_url: str = ""
    far: tuple[str, ...] = ()
    """Processes that belong to the response network: in production they run on other machines."""

    crossed: str = ""
    """Query for the number of results that came to the request network, those that came twice as two."""
    temporal: str = ""
    """Address of the Temporal server, where there is one."""

    @contextmanager
    def alone(self) -> Iterator[None]:
        """The request network by itself: the response network's processes stand still."""
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
        """Requests that are in the request network's database."""
        return await ask(self.request_database, "SELECT count(*) FROM requests")

    async def differences(self, answered: int) -> list[str]:
        """What says that not each of so many answered requests has gone all the way exactly once."""
        counts = {
            "requests in the request network": await self.stored(),
            "results in the request network": await ask(self.request_database, "SELECT count(*) FROM results"),
            "requests in the response network": await ask(self.response_database, "SELECT count(*) FROM requests"),
            "results in the response network": await ask(self.response_database, "SELECT count(*) FROM results"),
            "results that crossed": await ask(self.request_database, self.crossed),
        }
        return [f"{found} {what} for {answered} answered" for what, found in counts.items() if found != answered]


Start = Callable[[Path], AbstractAsyncContextManager[Contestant]]
"""Starts a contestant in a directory of its own, ready; stops it at the end."""


@asynccontextmanager
async def airlock(directory: Path) -> AsyncIterator[Contestant]:
    """`airlock up`, with its default configuration."""
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
            f"{up['redis']}/0",
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
    """The Celery build: both APIs, a worker of eight processes, and Beat, which has requests pulled so often."""
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
    """The one number that a query gives."""
    connection = await asyncpg.connect(url)
    try:
        return int(await connection.fetchval(query))
    finally:
        await connection.close()
