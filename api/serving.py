"""Serves an app on one or two ports, in one process and one event loop, until SIGTERM or SIGINT."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server.embed import Server

from api.listening import Listener, PathFilter
from models.errors import ConfigurationError

log = structlog.get_logger(__name__)

HEADER_SECONDS = 20.0
"""Time in which the head of a call must arrive, and for which an idle connection is kept. Bodies: `api.body_limit`."""

CONNECTIONS = 16_384
"""Maximum of open connections; a caller who waits for a result holds one. Further callers wait for a free one."""

FINISH_SECONDS = 4.0
"""Time for calls in progress when the server stops, so that a caller who neither sends nor reads cannot delay it."""


async def serve(app: FastAPI, listeners: Sequence[Listener]) -> None:
    """Serve until SIGTERM or SIGINT. Calls in progress are finished first."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with served(app, listeners) as serving:
        for listener in listeners:
            log.info("api.serving", network=app.title, address=listener.address, only_link=bool(listener.link))
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("api.stopping")


@asynccontextmanager
async def served(app: FastAPI, listeners: Sequence[Listener]) -> AsyncIterator["asyncio.Task[None]"]:
    """Open the app and serve it during the block. Yields the task that serves.

    At the end, calls the functions in ``app.state.on_stopping``, so that long polls end at once, finishes the calls in
    progress, and closes the app. Raises `ConfigurationError` if an address cannot be used.
    """
    async with app.router.lifespan_context(app):
        servers = [_server(app, listener) for listener in listeners]
        serving = asyncio.create_task(_serve_all(servers, listeners))
        try:
            yield serving
        finally:
            for end_long_poll in getattr(app.state, "on_stopping", ()):
                end_long_poll()
            _stop(servers)
            await asyncio.wait((serving,), timeout=FINISH_SECONDS)
            if not serving.done():
                log.warning("api.calls_cut_off", after_seconds=FINISH_SECONDS)
                serving.cancel()
                await asyncio.wait((serving,))
        if not serving.cancelled() and (error := serving.exception()) is not None:
            raise error


def _server(app: FastAPI, listener: Listener) -> Server:
    return Server(
        app if listener.link is None else PathFilter(app, listener.link),
        address=listener.host,
        port=listener.port,
        interface=Interfaces.ASGINL,  # `served` runs the lifespan, so that the app is always closed
        http=HTTPModes.http1,  # HTTP/2 without TLS: one more exposed parser that nobody uses
        http1_settings=HTTP1Settings(header_read_timeout=int(HEADER_SECONDS * 1000)),
        websockets=False,
        log_access=False,
        log_level=LogLevels.error,  # lower levels only report the start, in another format
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
        backlog=1024,
        backpressure=CONNECTIONS,
        **listener.options(),
    )


async def _serve_all(servers: Sequence[Server], listeners: Sequence[Listener]) -> None:
    """Serve until all have stopped. When one ends, stop the others."""
    tasks = [
        asyncio.create_task(_serve_one(server, listener)) for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        _stop(servers)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _serve_one(server: Server, listener: Listener) -> None:
    try:
        await server.serve()
    except Exception as error:
        raise ConfigurationError(f"Cannot serve on {listener.address}: {str(error).splitlines()[0]}") from None


def _stop(servers: Sequence[Server]) -> None:
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]
