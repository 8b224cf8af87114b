"""Builds the response network's app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from api.body_limit import BodyLimit
from api.documentation import install_documentation, operation_id
from api.metrics import Metrics, RequestMetrics
from api.probes import probes
from api.problems import install_problems
from api.response import (
    health_routes,
    quarantine_routes,
    request_type_routes,
    result_routes,
    schedule_routes,
    settings_routes,
    stream_routes,
    user_routes,
)
from api.response.services import open_services
from api.response.stream_metrics import StreamMetrics
from api.security_headers import SecurityHeaders
from configuration.settings import ResponseSettings
from configuration.version import VERSION

DESCRIPTION = """
For the operators of the response network: request types, settings, users, results, streams, schedules. Every call
except the health checks needs an operator's API key: `Authorization: Bearer <key>`. Errors are problem documents
(RFC 9457) with a stable `type`.
"""


def create_app(settings: ResponseSettings | None = None) -> FastAPI:
    """Build the app. It opens nothing until it is served. Raises `ConfigurationError`."""
    loaded = settings or ResponseSettings.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(loaded) as services:
            app.state.services = services
            yield

    app: FastAPI = FastAPIOffline(
        title="Airlock response network",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy, a redirect would name the wrong scheme
        openapi_tags=[
            {"name": "settings", "description": "Public settings cross the link, secret ones never do"},
            {"name": "request types", "description": "The kinds of requests, and their executors"},
            {"name": "users", "description": "Users and operators"},
            {"name": "results", "description": "Stored results"},
            {"name": "streams", "description": "Positions, backlog and previews of the streams"},
            {"name": "quarantine", "description": "Records that could not be applied: retry or drop them"},
            {"name": "schedules", "description": "Workflows that run at fixed times"},
            {"name": "health", "description": "The state of this network"},
        ],
    )
    metrics = Metrics("response", VERSION)
    app.state.metrics = metrics
    app.state.stream_metrics = StreamMetrics(metrics.registry)
    install_problems(app)
    install_documentation(app)
    for module in (
        settings_routes,
        request_type_routes,
        user_routes,
        result_routes,
        stream_routes,
        quarantine_routes,
        schedule_routes,
        health_routes,
    ):
        app.include_router(module.router)
    app.include_router(probes(lambda: app.state.services.engine))
    app.add_middleware(BodyLimit)
    app.add_middleware(RequestMetrics, metrics=metrics)
    app.add_middleware(SecurityHeaders)
    return app
