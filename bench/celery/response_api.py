"""The part of the response network's API that the load uses: settings. Runs in Airlock's virtual environment."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import asyncpg
import orjson
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, JsonValue

from api.listening import Listener
from api.serving import serve
from bench.celery.database_app import database_app


class Change(BaseModel):
    """A setting's new value."""

    value: JsonValue
    visibility: Literal["public", "secret"] = "public"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=1, max_size=4, command_timeout=10) as pool:
        app.state.pool = pool
        yield


app = database_app("response", _lifespan)


@app.put("/v1/settings/{name}")
async def change(request: Request, name: str, setting: Change) -> dict[str, Any]:
    """Store a setting; Beat's next `export_settings` sends it, unless it is secret."""
    if request.headers.get("authorization") != f"Bearer {os.environ['BENCH_API_KEY']}":
        raise HTTPException(401, "no API key, or one that is not known")
    await app.state.pool.execute(
        "INSERT INTO settings (name, value, visibility) VALUES ($1, $2, $3) ON CONFLICT (name) DO UPDATE SET"
        " value = excluded.value, visibility = excluded.visibility, version = nextval('setting_versions'),"
        " exported = false",
        name,
        orjson.dumps(setting.value).decode(),
        setting.visibility,
    )
    return {"name": name, **setting.model_dump()}


if __name__ == "__main__":
    asyncio.run(serve(app, [Listener("127.0.0.1", int(os.environ["BENCH_PORT"]))]))
