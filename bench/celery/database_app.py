"""The base of both APIs of the Celery build: a pool of connections, and 503 while the database is away."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import asyncpg
from fastapi import FastAPI, Request, Response


def database_app(title: str, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    """An app whose ``lifespan`` keeps a pool in ``app.state.pool``."""
    app = FastAPI(title=title, lifespan=lifespan, openapi_url=None)

    @app.exception_handler(OSError)
    @app.exception_handler(asyncpg.PostgresError)
    @app.exception_handler(asyncpg.InterfaceError)
    async def database_away(_request: Request, _error: Exception) -> Response:
        return Response(status_code=503, headers={"Retry-After": "1"})

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        """Whether the database answers."""
        await app.state.pool.fetchval("SELECT 1")
        return {"status": "ready"}

    return app
