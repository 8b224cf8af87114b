"""Serving an app on one port or two: one process, one event loop, a clean end on SIGTERM and SIGINT."""

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

from api.listening import Listener, OnlyThere
from models.errors import ConfigurationError

log = structlog.get_logger(__name__)

HEADER_SECONDS = 20.0
"""Time for a call's line and headers, and for which a connection without a call is kept. Bodies: `api.body_limit`."""

CONNECTIONS = 16_384
"""Open at a time; who waits for a result holds one. With more, callers wait until one is given up."""

FINISH_SECONDS = 4.0
"""Time that calls under way have when the server stops. A caller who neither sends nor reads may not hold it up."""


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve on one port, as it is, until a signal comes."""
    await serve_on(app, [Listener(host, port)])


async def serve_on(app: FastAPI, listeners: Sequence[Listener]) -> None:
    """Serve until a signal comes; calls under way are finished first."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with served_on(app, listeners) as serving:
        for listener in listeners:
            log.info("api.serving", network=app.title, address=listener.address, only_link=bool(listener.link))
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("api.stopping")


@asynccontextmanager
async def served(app: FastAPI, host: str, port: int) -> AsyncIterator["asyncio.Task[None]"]:
    """The same as `served_on` for one port, as it is."""
    async with served_on(app, [Listener(host, port)]) as serving:
        yield serving


@asynccontextmanager
async def served_on(app: FastAPI, listeners: Sequence[Listener]) -> AsyncIterator["asyncio.Task[None]"]:
    """Open the app and serve it for as long as the block runs; gives the task that serves.

    At the end, what ``app.state.on_stopping`` lists is called, so that long polls end at once; calls under way are
    finished; the app is closed. Raises `ConfigurationError` where an address cannot be listened on.
    """
    async with app.router.lifespan_context(app):
        servers = [_server(app, listener) for listener in listeners]
        serving = asyncio.create_task(_all_of(servers, listeners))
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
        app if listener.link is None else OnlyThere(app, listener.link),
        address=listener.host,
        port=listener.port,
        interface=Interfaces.ASGINL,  # the lifespan is ours, so that the app is closed whatever callers do
        http=HTTPModes.http1,  # HTTP/2 without TLS would be one more parser open to everybody, and nobody uses it
        http1_settings=HTTP1Settings(header_read_timeout=int(HEADER_SECONDS * 1000)),
        websockets=False,
        log_access=False,
        log_level=LogLevels.error,  # below that it only says that it starts, in a form of its own
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
        backlog=1024,
        backpressure=CONNECTIONS,
        **listener.options(),
    )


async def _all_of(servers: Sequence[Server], listeners: Sequence[Listener]) -> None:
    """Serve until all are stopped; when one ends, the others end too."""
    tasks = [
        asyncio.create_task(_one_of(server, listener)) for server, listener in zip(servers, listeners, strict=True)
    ]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        _stop(servers)
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _one_of(server: Server, listener: Listener) -> None:
    try:
        await server.serve()
    except Exception as error:
        raise ConfigurationError(f"Cannot serve on {listener.address}: {str(error).splitlines()[0]}") from None


def _stop(servers: Sequence[Server]) -> None:
    for server in servers:
        server.stop()  # type: ignore[no-untyped-call]
