"""The sql executor: one read-only statement with bound parameters, bounded in time, rows and bytes."""

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

# PostgreSQL itself writes the rows' JSON, so that it is passed through here and never parsed. The whole answer is
# counted; only the rows that may be returned are turned into JSON.
_WRAPPED = """
WITH answer AS MATERIALIZED (
{query}
)
SELECT row_to_json(answer.*)::text, count(*) OVER () FROM answer LIMIT {limit}
"""
_TIMEOUT_STATE = "57014"
_LONGEST_SECONDS = 610.0
"""More than any type's timeout: the server ends a statement in time, and this only finds one that is dead."""


class SqlSources:
    """The databases that queries may read, each with a pool of its own."""

    def __init__(self, sources: dict[str, SecretStr], connections: int) -> None:
        self._engines: dict[str, AsyncEngine] = {
            name: connect(url.get_secret_value(), connections, f"airlock-source-{name}", _LONGEST_SECONDS)
            for name, url in sources.items()
        }

    async def aclose(self) -> None:
        for engine in self._engines.values():
            await engine.dispose()

    async def execute(self, spec: SqlExecutor, params: dict[str, Any], limits: Limits) -> Answer:
        """Run the query; raises `ExecutionFailed` with the reason, or the driver's error when the source is away.

        The statement's text and the source's address never appear in what is raised.
        """
        engine = self._engines.get(spec.source)
        if engine is None:
            log.error("execution.source_missing", source=spec.source, todo="name it in AIRLOCK_RESPONSE_SOURCES")
            raise ExecutionFailed(
                "source-missing", "the source of this request type is not configured in the response network"
            )
        limit = max(1, rows_wanted(limits, params))
        try:
            statement = _statement(spec.query, limit)
            values = {name: params.get(name) for name in statement._bindparams}
            async with autocommit(engine) as connection:
                driver = (await connection.get_raw_connection()).driver_connection
                assert driver is not None
                # Both in one round trip, and at the end one more: together with the query three, where the pool's own
                # way of beginning and ending makes it six.
                await _begin(driver, limits.timeout)
                try:
                    found = (await connection.execute(statement, values)).all()
                finally:
                    await _end(driver)
        except DBAPIError as error:
            raise _explained(error, limits) from error
        except (StatementError, ArgumentError) as error:
            raise ExecutionFailed("invalid-query", "the query of this request type cannot be run") from error
        return Answer([one_line(row.encode()) for row, _ in found], found[0][1] if found else 0)


@lru_cache(maxsize=1024)
def _statement(query: str, limit: int) -> TextClause:
    """The wrapped query. To look for its parameters costs as much as a short query takes."""
    return text(_WRAPPED.format(query=query.strip().rstrip(";"), limit=limit))


async def _begin(driver: Any, seconds: float) -> None:
    """Begin a transaction that only reads; raises ``ConnectionError`` where the connection is of no use any more."""
    try:
        await driver.execute(f"BEGIN READ ONLY; SET LOCAL statement_timeout = {math.ceil(seconds * 1000)}")
    except Exception as error:  # of many kinds: neither statement can fail for a reason of its own
        driver.terminate()
        raise ConnectionError(f"no transaction could be begun: {describe(error)}") from error


async def _end(driver: Any) -> None:
    """End the transaction, or else the connection: the next query must not find itself in this one's."""
    try:
        await driver.execute("ROLLBACK")
    except Exception:  # of many kinds, where the server went away in the middle: what the query raised says why
        driver.terminate()
    except BaseException:
        driver.terminate()
        raise


def _explained(error: DBAPIError, limits: Limits) -> Exception:
    """What the request's owner may know of a database error: never the query or the address."""
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
