"""Builds the request network's app."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline
from starlette.types import ASGIApp

from api.body_limit import BodyLimit
from api.direct import DirectRoutes
from api.documentation import install_documentation, operation_id
from api.metrics import Metrics, RequestMetrics
from api.probes import probes
from api.problems import install_problems
from api.request import (
    catalog_routes,
    direct_routes,
    epoch_routes,
    key_routes,
    link_routes,
    request_routes,
    status_routes,
    verification_routes,
)
from api.request.link_health import LinkMetrics
from api.request.services import open_services
from api.security_headers import SecurityHeaders
from configuration.settings import RequestSettings
from configuration.version import VERSION
from exchange.wire.batch import MAX_WIRE_BYTES
from models.requests import RequestSubmission

DESCRIPTION = """
Submit requests and read their results. Every call except the health checks needs an API key:
`Authorization: Bearer <key>`. Errors are problem documents (RFC 9457) with a stable `type`.

The `link` endpoints are for the response network only, which signs every call.
"""


def create_app(settings: RequestSettings | None = None) -> FastAPI:
    """Build the app. It opens nothing until it is served. Raises `ConfigurationError`."""
    loaded = settings or RequestSettings.load()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(loaded) as services:
            app.state.services = services
            app.state.on_stopping = [services.end_long_polls]
            yield

    app: FastAPI = FastAPIOffline(
        title="Airlock request network",
        version=VERSION,
        description=DESCRIPTION,
        lifespan=lifespan,
        generate_unique_id_function=operation_id,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # looking for providers cost 5 % of each call
        redirect_slashes=False,  # behind a proxy, a redirect would name the wrong scheme
        openapi_tags=[
            {"name": "requests", "description": "Submit, follow, cancel; read results"},
            {"name": "catalogue", "description": "Request types and public settings"},
            {"name": "link", "description": "For the response network only; signed both ways"},
            {"name": "health", "description": "The state of both networks"},
        ],
    )
    metrics = Metrics("request", VERSION)
    app.state.metrics = metrics
    app.state.link_metrics = LinkMetrics(metrics.registry)
    install_problems(app)
    install_documentation(app, RequestSubmission)
    for module in (
        direct_routes,
        request_routes,
        catalog_routes,
        link_routes,
        epoch_routes,
        verification_routes,
        key_routes,
        status_routes,
    ):
        app.include_router(module.router)
    app.include_router(probes(lambda: app.state.services.engine))
    _put_in_front(app, metrics)
    return app


def _put_in_front(app: FastAPI, metrics: Metrics) -> None:
    """Put the direct routes and our middleware before FastAPI's own, which would add a tenth to a direct route."""
    build = app.build_middleware_stack

    def stack() -> ASGIApp:
        direct = DirectRoutes(build(), direct_routes.ROUTES)
        return SecurityHeaders(RequestMetrics(BodyLimit(direct, larger={"/link/": MAX_WIRE_BYTES}), metrics))

    app.build_middleware_stack = stack  # type: ignore[method-assign]
