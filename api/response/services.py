"""The services of the response network's API."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from cache.redis_cache import Cache
from configuration.settings import ResponseSettings
from orchestration.client import connect_temporal, sdk_runtime
from storage.database import connect


@dataclass(frozen=True)
class Services:
    """The open services that routes use."""

    settings: ResponseSettings
    engine: AsyncEngine
    temporal: Client
    cache: Cache


@asynccontextmanager
async def open_services(settings: ResponseSettings) -> AsyncIterator[Services]:
    """Open the services, and close them in reverse. Temporal, Redis and the database need not answer yet."""
    async with AsyncExitStack() as stack:
        engine = connect(
            settings.database_url.get_secret_value(), settings.database_connections, "airlock-response-api"
        )
        stack.push_async_callback(engine.dispose)
        cache = Cache(settings.redis_url.get_secret_value())
        stack.push_async_callback(cache.aclose)
        # ERROR: if Temporal is away, a call answers 503 and is counted; a log line per attempt is not needed.
        temporal = await connect_temporal(settings, sdk_runtime("ERROR"), lazy=True, identity="response-api")
        yield Services(settings, engine, temporal, cache)
