"""Checks the query of a request type: the source prepares it, without running it."""

import asyncio

import asyncpg
import structlog
from sqlalchemy import text
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from api.problems import invalid_fields

log = structlog.get_logger(__name__)

ANSWER_SECONDS = 5.0
_UNDECIDED = ("42P18", "42P08", "42P38")
"""SQLSTATEs for a parameter whose type depends on its value. Preparing cannot check such a query."""
_AWAY = ("08", "28", "3D", "53", "57")
"""Classes of SQLSTATE that concern the source and not the query."""


async def check_query(url: str, source: str, query: str, properties: set[str] | None) -> list[str]:
    """Return a warning if the source does not answer. Raises `InvalidInput` with the database's message.

    ``properties`` are the possible parameters, or None if any parameter is possible.
    """
    statement = text(f"WITH answer AS (\n{query.strip().rstrip(';')}\n) SELECT row_to_json(answer)::text FROM answer")
    compiled = statement.compile(dialect=dialect())  # type: ignore[no-untyped-call]
    unknown = sorted(set(compiled.params) - properties) if properties is not None else []
    if unknown:
        message = f"uses :{', :'.join(unknown)}, which params_schema does not define"
        raise invalid_fields([("executor.query", message)])
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            await _prepare(url, str(compiled))
    except asyncpg.PostgresError as error:
        state = str(error.sqlstate or "")
        if state in _UNDECIDED:
            return []
        if state[:2] not in _AWAY:
            raise invalid_fields([("executor.query", f"the database says: {error}")]) from None
        reason = type(error).__name__
    except (OSError, TimeoutError, asyncpg.InterfaceError) as error:
        reason = type(error).__name__
    else:
        return []
    log.warning("request_type.query_not_checked", source=source, reason=reason)
    return [f"the query was not checked: the source {source!r} does not answer ({reason})"]


async def _prepare(url: str, statement: str) -> None:
    connection = await asyncpg.connect(
        url, timeout=ANSWER_SECONDS, server_settings={"default_transaction_read_only": "on"}
    )
    try:
        await connection.prepare(statement)
    finally:
        connection.terminate()
