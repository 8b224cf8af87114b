"""Serving an app: one process, one event loop, a clean end on SIGTERM and SIGINT."""

import asyncio
import signal

import structlog
from fastapi import FastAPI
from granian.constants import Interfaces
from granian.log import LogLevels
from granian.server.embed import Server

log = structlog.get_logger(__name__)


async def serve(app: FastAPI, host: str, port: int) -> None:
    """Serve until a signal comes; calls under way are finished first. What ``app.state.on_stopping`` lists is called
    before, so that long polls end at once.
    """
    server = make_server(app, host, port)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    serving = asyncio.create_task(server.serve())
    log.info("api.serving", network=app.title, address=f"http://{host}:{port}")
    stopping = asyncio.create_task(stopped.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stopping.cancel()
        serving.result()
        return
    log.info("api.stopping")
    await stop(app, server, serving)


def make_server(app: FastAPI, host: str, port: int) -> Server:
    """A server for this app; its ``serve`` opens the app and runs until `stop`."""
    return Server(
        app,
        address=host,
        port=port,
        interface=Interfaces.ASGI,
        websockets=False,
        log_access=False,
        log_level=LogLevels.error,  # below that it only says that it starts, in a form of its own
        log_dictconfig={"handlers": {}, "loggers": {"_granian": {"propagate": True}}},
        backlog=1024,
    )


async def stop(app: FastAPI, server: Server, serving: "asyncio.Task[None]") -> None:
    """End long polls, finish the calls under way, close the app."""
    for end_long_poll in getattr(app.state, "on_stopping", ()):
        end_long_poll()
    server.stop()  # type: ignore[no-untyped-call]
    await serving
