"""The response network's app on real servers, and callers with keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI
from temporalio.testing import WorkflowEnvironment
from uuid_utils.compat import uuid7

from api.response import create_app
from configuration.settings import ResponseSettings
from people.users import put_api_key, put_user
from tests.conftest import Networks
from tests.schedules.conftest import client, temporal

__all__ = ["client", "temporal"]

OPERATOR_KEY, USER_KEY = "alk_operator", "alk_user"


@dataclass(frozen=True)
class Api:
    """The app while it runs, and an operator who calls it."""

    app: FastAPI
    http: httpx.AsyncClient
    networks: Networks


@pytest.fixture
def settings(networks: Networks, temporal: WorkflowEnvironment) -> ResponseSettings:
    """Real servers; of the two sources one is away."""
    return ResponseSettings.model_validate(
        {
            "database_url": networks.response.url,
            "redis_url": networks.servers.redis_url,
            "temporal_address": temporal.client.service_client.config.target_host,
            "temporal_namespace": temporal.client.namespace,
            "keys": networks.response.keys_directory,
            "sources": {"own": networks.response.url, "away": "postgresql://nobody:x@127.0.0.1:1/none"},
            "http_hosts": ["search.example:9200"],
            "python_executors": ["reports"],
        }
    )


@asynccontextmanager
async def running(app: FastAPI, key: str = OPERATOR_KEY) -> AsyncIterator[httpx.AsyncClient]:
    """The app with its lifespan, called in this process."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://response",
            headers={"Authorization": f"Bearer {key}"},
        ) as http,
    ):
        yield http


@pytest.fixture
async def api(networks: Networks, settings: ResponseSettings) -> AsyncIterator[Api]:
    """The app, an operator and a user."""
    async with networks.response.engine.begin() as connection:
        for name, role, key in (("olga", "operator", OPERATOR_KEY), ("ulf", "user", USER_KEY)):
            await put_api_key(connection, await put_user(connection, uuid7(), name, role), key, "test")
    app = create_app(settings)
    async with running(app) as http:
        yield Api(app, http, networks)
