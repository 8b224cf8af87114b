"""The sql executor: one read-only statement with bound parameters, bounded in time, rows and bytes."""

from typing import Any

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import ArgumentError, DBAPIError, StatementError
from sqlalchemy.ext.asyncio import AsyncEngine

from executors.answer import Answer, ExecutionFailed, rows_wanted
from models.executors import SqlExecutor
from models.requests import Limits
from storage.database import connect, is_unreachable

# PostgreSQL itself writes the rows' JSON, so that it is passed through here and never parsed. The whole answer is
# counted; only the rows that may be returned are turned into JSON.
_WRAPPED = """
WITH answer AS MATERIALIZED (
{query}
)
SELECT row_to_json(answer)::text, count(*) OVER () FROM answer LIMIT {limit}
"""
_TIMEOUT_STATE = "57014"


class SqlSources:
    """The databases that queries may read, each with a pool of its own."""

    def __init__(self, sources: dict[str, SecretStr], connections: int) -> None:
        self._engines: dict[str, AsyncEngine] = {
            name: connect(url.get_secret_value(), connections, f"airlock-source-{name}")
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
            raise ExecutionFailed(
                "source-missing", f"the source {spec.source!r} is not configured in the response network"
            )
        limit = max(1, rows_wanted(limits, params))
        try:
            statement = text(_WRAPPED.format(query=spec.query.strip().rstrip(";"), limit=limit))
            names = statement._bindparams.keys()
            async with engine.connect() as connection:
                await connection.execute(text("SET TRANSACTION READ ONLY"))
                await connection.execute(text(f"SET LOCAL statement_timeout = {int(limits.timeout * 1000)}"))
                found = (await connection.execute(statement, {name: params.get(name) for name in names})).all()
                await connection.rollback()
        except DBAPIError as error:
            raise _explained(error, limits) from error
        except (StatementError, ArgumentError) as error:
            raise ExecutionFailed("invalid-query", "the query of this request type cannot be run") from error
        return Answer([row.encode() for row, _ in found], found[0][1] if found else 0)


def _explained(error: DBAPIError, limits: Limits) -> Exception:
    """What the request's owner may know of a database error: never the query or the address."""
    state = str(getattr(error.orig, "sqlstate", None) or "")
    if state == _TIMEOUT_STATE:
        return ExecutionFailed("timeout", f"the query took longer than {limits.timeout:g} s")
    if is_unreachable(error):
        return error
    if state.startswith("22") or (not state and "invalid input for query argument" in str(error.orig)):
        return ExecutionFailed("invalid-params", "the database does not take these parameters")
    if state in ("25006", "42501"):
        return ExecutionFailed("not-allowed", "the query of this request type does more than read")
    return ExecutionFailed("query-failed", f"the database refused the query (SQLSTATE {state or 'unknown'})")
