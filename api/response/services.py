"""What the response network's API holds open."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine
from temporalio.client import Client

from cache.redis_cache import Cache
from configuration.settings import ResponseSettings
from orchestration.client import connect_temporal, sdk_runtime
from storage.database import connect, value


@dataclass(frozen=True)
class Services:
    """Handed to the routes."""

    settings: ResponseSettings
    engine: AsyncEngine
    temporal: Client
    cache: Cache

    async def database_answers(self) -> None:
        """Raises when it does not."""
        async with self.engine.connect() as connection:
            await value(connection, "SELECT 1")


@asynccontextmanager
async def open_services(settings: ResponseSettings) -> AsyncIterator[Services]:
    """Open everything and close in reverse. Starts without Temporal, Redis and the database."""
    async with AsyncExitStack() as stack:
        engine = connect(
            settings.database_url.get_secret_value(), settings.database_connections, "airlock-response-api"
        )
        stack.push_async_callback(engine.dispose)
        cache = Cache(settings.redis_url.get_secret_value())
        stack.push_async_callback(cache.aclose)
        # ERROR: a call that finds Temporal away answers 503 and is counted, and needs no line per try in the log.
        temporal = await connect_temporal(settings, sdk_runtime("ERROR"), lazy=True, identity="response-api")
        yield Services(settings, engine, temporal, cache)
