"""`/healthz` and `/readyz`: whether the process lives, and whether it can serve. They need no API key."""

import asyncio
from collections.abc import Callable
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy.ext.asyncio import AsyncEngine

from storage.database import value

ANSWER_SECONDS = 2.0


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether the needed servers answer."""

    status: Literal["ready", "not-ready"]
    away: list[str] = Field(description="Servers that do not answer now", examples=[["database"]])


def probes(engine: Callable[[], AsyncEngine]) -> APIRouter:
    """Routes for both probes. ``engine`` is called at each `/readyz`."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Alive:
        return Alive()

    @router.get(
        "/readyz",
        summary="Whether requests can be served",
        responses={503: {"model": Readiness, "description": "A needed server does not answer"}},
    )
    async def readyz(response: Response) -> Readiness:
        if await _answers(engine()):
            return Readiness(status="ready", away=[])
        response.status_code = 503
        return Readiness(status="not-ready", away=["database"])

    return router


async def _answers(engine: AsyncEngine) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS), engine.connect() as connection:
            await value(connection, "SELECT 1")
    except Exception:  # the probe answers false, whatever the failure is
        return False
    return True
