"""The sql executor: one read-only query with bound parameters and limits on time, rows and bytes.

The source counts the bytes too, so that this process never holds more rows than the type's limit allows.
"""

import math
from functools import lru_cache
from typing import Any

import structlog
from pydantic import SecretStr
from sqlalchemy import TextClause, text
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from execution.answer import Answer, ExecutionFailed, one_line, rows_wanted
from models.errors import describe
from models.executors import SqlExecutor
from models.requests import Limits
from storage.database import autocommit, connect, is_unreachable

log = structlog.get_logger(__name__)

# PostgreSQL writes the JSON of the rows, which is passed on without being parsed. All rows are counted; only those to
# return become JSON, and only those within the bytes leave the server. The first one always does, for the total.
_WRAPPED = """
WITH answer AS MATERIALIZED (
{query}
), returned AS (
SELECT row_to_json(answer.*)::text AS body, count(*) OVER () AS total FROM answer LIMIT {limit}
), measured AS (
SELECT body, total, row_number() OVER counted AS number, sum(octet_length(body) + 1::bigint) OVER counted AS used
FROM returned WINDOW counted AS (ROWS UNBOUNDED PRECEDING)
)
SELECT CASE WHEN used <= {bytes} THEN body END, total FROM measured WHERE used <= {bytes} OR number = 1
"""
_TIMEOUT_STATE = "57014"
_LONGEST_SECONDS = 610.0
"""Longer than any type's timeout. The server ends a slow statement; this only detects a dead connection."""


class SqlSources:
    """The databases that queries may read, each with its own connection pool."""

    def __init__(self, sources: dict[str, SecretStr], connections: int) -> None:
        self._engines: dict[str, AsyncEngine] = {
            name: connect(url.get_secret_value(), connections, f"airlock-source-{name}", _LONGEST_SECONDS)
            for name, url in sources.items()
        }

    async def aclose(self) -> None:
        for engine in self._engines.values():
            await engine.dispose()

    async def execute(self, spec: SqlExecutor, params: dict[str, Any], limits: Limits) -> Answer:
        """Run the query. Raises `ExecutionFailed` with the reason, or the driver's error if the source does not answer.

        The message of `ExecutionFailed` never contains the query or the address of the source.
        """
        engine = self._engines.get(spec.source)
        if engine is None:
            log.error("execution.source_missing", source=spec.source, todo="name it in AIRLOCK_RESPONSE_SOURCES")
            raise ExecutionFailed(
                "source-missing", "the source of this request type is not configured in the response network"
            )
        limit = max(1, rows_wanted(limits, params))
        try:
            statement = _statement(spec.query, limit, limits.bytes)
            values = {name: params.get(name) for name in statement._bindparams}
            async with autocommit(engine) as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                # Three round trips in all: begin with timeout, query, end. SQLAlchemy's own transaction takes six.
                await _begin(driver, limits.timeout)
                try:
                    found = (await connection.execute(statement, values)).all()
                finally:
                    await _end(driver)
        except DBAPIError as error:
            raise _explained(error, limits) from error
        except (StatementError, ArgumentError) as error:
            raise ExecutionFailed("invalid-query", "the query of this request type cannot be run") from error
        fitting = [one_line(row.encode()) for row, _ in found if row is not None]
        return Answer(fitting, found[0][1] if found else 0)


@lru_cache(maxsize=1024)
def _statement(query: str, limit: int, most_bytes: int) -> TextClause:
    """The wrapped query, cached: parsing it for parameters takes as long as a short query."""
    return text(_WRAPPED.format(query=query.strip().rstrip(";"), limit=limit, bytes=most_bytes))


async def _begin(driver: Any, seconds: float) -> None:
    """Begin a read-only transaction. Raises ``ConnectionError`` if the connection is broken."""
    try:
        await driver.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {math.ceil(seconds * 1000)}")
    except Exception as error:  # both statements are correct, so any error means a broken connection
        driver.terminate()
        raise ConnectionError(f"cannot begin a transaction: {describe(error)}") from error


async def _end(driver: Any) -> None:
    """End the transaction, or close the connection: the next query must not run in this transaction."""
    try:
        await driver.execute("ROLLBACK")
    except Exception:  # the server is gone; the error of the query says why
        driver.terminate()
    except BaseException:
        driver.terminate()
        raise


def _explained(error: DBAPIError, limits: Limits) -> Exception:
    """The error for the request's owner, without the query and the address of the source."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state == _TIMEOUT_STATE:
        return ExecutionFailed("timeout", f"the query took longer than {limits.timeout:g} s")
    if state.startswith("22") or (not state and "invalid input for query argument" in str(error.orig)):
        return ExecutionFailed("invalid-params", "the database does not take these parameters")
    if is_unreachable(error) and (state or error.connection_invalidated):
        return error
    if state in ("25006", "42501"):
        return ExecutionFailed("not-allowed", "the query of this request type does more than read")
    return ExecutionFailed("query-failed", f"the database refused the query (SQLSTATE {state or 'unknown'})")
