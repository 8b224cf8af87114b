"""`/healthz` and `/readyz`: whether the process lives, and whether it can serve. They need no key, tell no details."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

Check = Callable[[], Awaitable[object]]
"""Answers, or raises, within `ANSWER_SECONDS`."""

ANSWER_SECONDS = 2.0


class Alive(BaseModel):
    """The process answers."""

    status: Literal["alive"] = "alive"


class Readiness(BaseModel):
    """Whether what is needed to serve answers."""

    status: Literal["ready", "not-ready"]
    away: list[str] = Field(description="What does not answer now", examples=[["database"]])


def probes(checks: Callable[[], Mapping[str, Check]]) -> APIRouter:
    """Routes for both probes; ``checks`` gives what must answer, by name, when it is asked."""
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> Alive:
        return Alive()

    @router.get(
        "/readyz",
        summary="Whether requests can be served",
        responses={503: {"model": Readiness, "description": "Something that is needed does not answer"}},
    )
    async def readyz(response: Response) -> Readiness:
        named = checks()
        answered = await asyncio.gather(*(_answers(check) for check in named.values()))
        away = [name for name, good in zip(named, answered, strict=True) if not good]
        if away:
            response.status_code = 503
        return Readiness(status="not-ready" if away else "ready", away=away)

    return router


async def _answers(check: Check) -> bool:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await check()
    except Exception:  # a probe tells that something is away, whatever way it fails
        return False
    return True
