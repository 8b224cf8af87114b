"""The request network's app as it is really served, and what a settings snapshot tells it."""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import httpx
from fastapi import FastAPI
from uuid_utils.compat import uuid7

from api.listening import Listener
from api.request import create_app
from api.serving import served
from configuration import redis_url
from configuration.settings import RequestSettings
from embedded.ports import free_port
from fulfilment.result_store import ArrivedResult, store_results, store_snapshot
from models.streams import BatchRef, StreamName
from storage.database import value
from tests.conftest import Networks

AWAY = "127.0.0.1:1"
"""Where nobody listens."""


def settings_for(networks: Networks, redis_database: int = 3, **other: Any) -> RequestSettings:
    """Real PostgreSQL and Redis; Temporal is away."""
    return RequestSettings.model_validate(
        {
            "database_url": networks.request.url,
            "redis_url": redis_url.redis_database(networks.servers.redis_url, redis_database),
            "temporal_address": AWAY,
            "keys": networks.request.keys_directory,
            "link_id": "test",
            "retention": 3600.0,
        }
        | other
    )


@asynccontextmanager
async def serving(settings: RequestSettings, change: Callable[[FastAPI], None] = lambda _: None) -> AsyncIterator[str]:
    """The app behind its real server on a free port; gives its URL."""
    app = create_app(settings)
    change(app)
    port = free_port()
    async with served(app, [Listener("127.0.0.1", port)]):
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:

            async def answers() -> bool:
                with contextlib.suppress(httpx.TransportError):
                    return (await http.get("/healthz")).status_code == 200
                return False

            await eventually(answers, "the app answers")
        yield url


async def eventually(check: Callable[[], Awaitable[bool]], what: str, patience: float = 20.0) -> None:
    """Wait for a condition; fails the test when it does not come true."""
    until = time.monotonic() + patience
    while not await check():
        assert time.monotonic() < until, f"not within {patience:g} s: {what}"
        await asyncio.sleep(0.02)


@dataclass(frozen=True)
class User:
    """A caller and the key that belongs to it."""

    user_id: UUID
    key: str
    role: str = "user"

    def record(self) -> bytes:
        sha256 = hashlib.sha256(self.key.encode()).hexdigest()
        return json.dumps(
            {"kind": "api-key", "sha256": sha256, "user_id": str(self.user_id), "user": self.key, "role": self.role}
        ).encode()

    def calls(self, url: str, **options: Any) -> httpx.AsyncClient:
        """A client with this user's key."""
        headers = {"Authorization": f"Bearer {self.key}"}
        limits = httpx.Limits(max_connections=64)
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, limits=limits, trust_env=False, **options)


def new_user(role: str = "user") -> User:
    user_id = uuid7()
    return User(user_id, f"alk_{user_id}", role)


def setting(name: str, content: Any, version: int = 1) -> bytes:
    return json.dumps({"kind": "setting", "name": name, "value": content, "version": version}).encode()


def request_type(name: str, schema: dict[str, Any] | None = None) -> bytes:
    return json.dumps(
        {"kind": "request-type", "name": name, "version": 1, "params_schema": schema or {"type": "object"}}
    ).encode()


AIRPORT = request_type(
    "airport",
    {
        "type": "object",
        "properties": {"iata": {"type": "string", "pattern": "^[A-Z]{3}$"}},
        "required": ["iata"],
        "additionalProperties": False,
    },
)
ANYTHING = request_type("anything")
IST = {"type": "airport", "params": {"iata": "IST"}}


async def publish(networks: Networks, records: Sequence[bytes]) -> int:
    """Make these records the newest settings snapshot, as its import does; gives its number."""
    async with networks.request.engine.begin() as connection:
        newest = await value(connection, "SELECT coalesce(max(sequence), 0) FROM snapshots WHERE stream = 'settings'")
        number: int = newest + 1
        await store_snapshot(connection, StreamName.SETTINGS, 1, number, datetime.now(UTC), b"\n".join(records))
    return number


def result_body(request_id: UUID | str, data: Sequence[Any] = ({"city": "Istanbul"},)) -> bytes:
    """A result as it crosses; the odd spacing shows whether anybody rebuilt it."""
    return (
        b'{"request_id": "%s",  "status": "completed", "data": %s, "returned": %d, "total": %d, "truncated": false,'
        b' "error": null, "executed_at": "2026-01-02T03:04:05Z", "duration_ms": 1.50}'
        % (str(request_id).encode(), json.dumps(list(data)).encode(), len(data), len(data))
    )


async def answer(networks: Networks, request_id: UUID | str, body: bytes | None = None) -> None:
    """Store a result for a request, as its import does."""
    result = ArrivedResult(1, UUID(str(request_id)), "completed", body or result_body(request_id))
    async with networks.request.engine.begin() as connection:
        await store_results(connection, BatchRef(stream=StreamName.RESULTS, epoch=1, sequence=1), [result])
