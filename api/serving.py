"""Serving an app: one process, one event loop, a clean end on SIGTERM and SIGINT."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

from models.errors import ConfigurationError

log = structlog.get_logger(__name__)

FINISH_SECONDS = 4.0
"""Time that calls under way have when the server stops. A caller who neither sends nor reads may not hold it up."""


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until a signal comes; calls under way are finished first."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with served(app, host, port) as serving:
        log.info("api.serving", network=app.title, address=f"http://{host}:{port}")
        stopping = asyncio.create_task(stopped.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        log.info("api.stopping")


@asynccontextmanager
async def served(app: FastAPI, host: str, port: int) -> AsyncIterator["asyncio.Task[None]"]:
    """Open the app and serve it for as long as the block runs; gives the task that serves.

    At the end, what ``app.state.on_stopping`` lists is called, so that long polls end at once; calls under way are
    finished; the app is closed. Raises `ConfigurationError` where the address cannot be listened on.
    """
    async with app.router.lifespan_context(app):
        server = Server(
            app,
            address=host,
            port=port,
            interface=Interfaces.ASGINL,  # the lifespan is ours, so that the app is closed whatever callers do
            websockets=False,
            log_access=False,
            log_level=LogLevels.error,  # below that it only says that it starts, in a form of its own
            log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
            backlog=1024,
        )
        serving = asyncio.create_task(server.serve())
        try:
            yield serving
        finally:
            for end_long_poll in getattr(app.state, "on_stopping", ()):
                end_long_poll()
            server.stop()  # type: ignore[no-untyped-call]
            await asyncio.wait((serving,), timeout=FINISH_SECONDS)
            if not serving.done():
                log.warning("api.calls_cut_off", after_seconds=FINISH_SECONDS)
                serving.cancel()
                await asyncio.wait((serving,))
        if not serving.cancelled() and (error := serving.exception()) is not None:
            raise ConfigurationError(f"Cannot serve on {host}:{port}: {str(error).splitlines()[0]}") from None
