"""What is said of an error: what kind it is, and never the data that it quotes."""

import logging
import traceback
from collections.abc import Awaitable, Callable
from io import StringIO
from typing import Any

import asyncpg
import httpx
import jsonschema_rs
import pytest
import structlog
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from configuration.logs import configure_logs
from models.error_text import describe, stack_trace
from storage.database import connect, execute
from tests.conftest import Servers

SECRET = "canary-4b1d"


async def table(connection: AsyncConnection) -> None:
    await execute(
        connection,
        "CREATE TEMP TABLE kept (name text NOT NULL UNIQUE CHECK (name <> 'bad'), n integer, other text NOT NULL)",
    )


DATABASE: dict[str, tuple[str, dict[str, Any], str]] = {
    "unique": ("INSERT INTO kept SELECT :s, 1, 'x' FROM generate_series(1, 2)", {}, "unique constraint"),
    "check": ("INSERT INTO kept (name, other) SELECT 'bad', CAST(:s AS text)", {}, "check constraint"),
    "not null": ("INSERT INTO kept (name) VALUES (:s)", {}, "not-null constraint"),
    "wrong value": ("SELECT CAST(CAST(:s AS text) AS integer)", {}, "InvalidTextRepresentationError (SQLSTATE 22P02)"),
    "wrong time": ("SELECT CAST(CAST(:s AS text) AS timestamptz)", {}, "SQLSTATE 22007"),
    "wrong JSON": ("SELECT CAST(CAST(:s AS text) AS jsonb)", {}, "SQLSTATE 22P02"),
    "wrong argument": ("SELECT CAST(:s AS integer)", {}, "DataError (SQLSTATE"),
    "raised": (f"DO $$ BEGIN RAISE EXCEPTION 'no {SECRET}' USING ERRCODE = '53100'; END $$", {"s": None}, "DiskFull"),
    "syntax": (f"SELECT 1 {SECRET!r} 2 WHERE CAST(:s AS text) = ''", {}, "SQLSTATE 42601"),
}


async def broken(servers: Servers, statement: str, parameters: dict[str, Any]) -> Exception:
    engine = connect(servers.databases.request, 1)
    wanted = {name: given for name, given in ({"s": SECRET} | parameters).items() if given is not None}
    try:
        with pytest.raises(Exception) as raised:  # noqa: PT012
            async with engine.connect() as connection:
                await table(connection)
                await connection.execute(text(statement), wanted)
    finally:
        await engine.dispose()
    return raised.value


@pytest.mark.parametrize("kind", list(DATABASE))
async def test_a_database_error_says_its_kind_without_the_row(servers: Servers, kind: str) -> None:
    statement, parameters, words = DATABASE[kind]
    error = await broken(servers, statement, parameters)
    assert words in describe(error)
    assert SECRET not in describe(error)
    assert SECRET not in stack_trace(error).replace(statement, "")
    assert "Traceback (most recent call last):" in stack_trace(error)


async def test_an_error_of_the_driver_itself_says_no_argument(servers: Servers) -> None:
    connection = await asyncpg.connect(servers.databases.request)
    try:
        with pytest.raises(asyncpg.DataError) as raised:
            await connection.fetchval("SELECT $1::integer", SECRET)
    finally:
        await connection.close()
    assert SECRET in str(raised.value)
    assert SECRET not in describe(raised.value)


async def test_postgresqls_own_log_has_no_details_no_statements_and_no_parameters(servers: Servers) -> None:
    connection = await asyncpg.connect(servers.databases.request)
    shown = {}
    try:
        for name in ("log_error_verbosity", "log_min_error_statement", "log_parameter_max_length_on_error"):
            shown[name] = await connection.fetchval(f"SHOW {name}")
    finally:
        await connection.close()
    assert list(shown.values()) == ["terse", "panic", "0"]


async def test_a_redis_error_has_its_code_and_neither_key_nor_value(servers: Servers) -> None:
    redis = Redis.from_url(servers.redis_url)

    async def alone() -> None:
        await redis.execute_command(SECRET, SECRET)  # type: ignore[no-untyped-call]

    async def in_a_pipeline() -> None:
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.set("a list", SECRET, ex=-5)
            await pipeline.execute()

    calls: list[Callable[[], Awaitable[None]]] = [alone, in_a_pipeline]
    for call in calls:
        with pytest.raises(Exception) as raised:
            await call()
        assert SECRET in str(raised.value)
        assert describe(raised.value) == "ResponseError"
    pushed: Awaitable[int] = redis.lpush("a list", SECRET)
    await pushed
    with pytest.raises(ResponseError) as refused:  # noqa: PT012
        async with redis.pipeline(transaction=False) as pipeline:
            pipeline.append("a list", SECRET)
            await pipeline.execute()
    assert SECRET not in describe(refused.value)
    await redis.delete("a list")
    await redis.aclose()


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    number: int


def test_an_invalid_value_is_named_by_its_place() -> None:
    with pytest.raises(ValueError, match=SECRET) as raised:
        Strict.model_validate({"number": SECRET})
    assert describe(raised.value).startswith("number: Input should be a valid integer")
    assert SECRET not in describe(raised.value)
    with pytest.raises(jsonschema_rs.ValidationError, match=SECRET) as refused:
        jsonschema_rs.validate({"properties": {"a": {"type": "integer"}}}, {"a": SECRET})
    assert describe(refused.value) == "the value at /a does not fit its schema"


def test_a_url_in_a_message_has_neither_credentials_nor_query() -> None:
    request = httpx.Request("GET", f"https://me:{SECRET}@service.example/path?key={SECRET}&a=b")
    with pytest.raises(httpx.HTTPStatusError) as raised:
        httpx.Response(500, request=request).raise_for_status()
    assert "https://…@service.example/path?…" in describe(raised.value)
    assert SECRET not in describe(raised.value)
    assert describe(ValueError(f"cannot use redis://:{SECRET}@10.0.0.1/0")) == "cannot use redis://…@10.0.0.1/0"


def test_a_stack_trace_shows_all_causes_and_exceptions_of_a_group() -> None:
    def inner() -> None:
        raise KeyError("first")

    with pytest.raises(ExceptionGroup) as raised:  # noqa: PT012
        try:
            inner()
        except KeyError as error:
            raise ExceptionGroup("two", [ValueError("second"), TimeoutError()]) from error
    shown = stack_trace(raised.value)
    for words in ("KeyError: 'first'", "This led to:", "ValueError: second", "  | builtins.TimeoutError: TimeoutError"):
        assert words in shown
    assert "in inner" in shown


@pytest.mark.parametrize("form", ["console", "json"])
async def test_a_logged_error_shows_no_variables_and_no_message_with_data(
    servers: Servers, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = StringIO()
    monkeypatch.setattr("sys.excepthook", lambda *_: None)
    monkeypatch.setattr("threading.excepthook", lambda *_: None)
    configure_logs(form, "INFO", stream)  # type: ignore[arg-type]
    error = await broken(servers, *DATABASE["wrong argument"][:2])

    def fails() -> None:
        password = SECRET + "-in-a-variable"
        assert password
        raise RuntimeError("it broke") from error

    try:
        fails()
    except RuntimeError:
        structlog.get_logger("a").exception("broke")
        logging.getLogger("b").exception("broke too")
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: %r", error, exc_info=error)
    said = stream.getvalue()
    assert said.count("it broke") >= 2
    assert "Task exception was never retrieved" in said
    assert "DataError (SQLSTATE" in said
    assert SECRET not in said.replace("".join(traceback.format_tb(error.__traceback__)), "")
