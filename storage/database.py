"""Connections to one network's PostgreSQL, short functions for statements, and notices of commits."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import lru_cache
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import asyncpg
import structlog
from sqlalchemy import TextClause, event, text
from sqlalchemy.engine import Row
from sqlalchemy.exc import DBAPIError, InterfaceError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from models.errors import describe

log = structlog.get_logger(__name__)

CHANNEL = "airlock"
"""The only channel for NOTIFY; the payload names what was committed."""

UNREACHABLE = (
    OperationalError,
    InterfaceError,
    PoolTimeoutError,
    ConnectionError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InternalClientError,  # the connection was closed while a statement was sent
)
"""Errors of a query while the database is away. `is_unreachable` also looks into a DBAPIError."""

AnyRow: TypeAlias = Row[*tuple[Any, ...]]
"""A row whose columns have the types that its statement gives them."""

_statement = lru_cache(maxsize=None)(text)


def connect(
    url: str, connections: int = 10, application: str = "airlock", command_seconds: float = 60.0
) -> AsyncEngine:
    """An engine for ``postgresql://…`` with its own pool, which replaces closed connections.

    The server ends transactions that are idle for 60 s, and statements after 60 s unless they set their own limit. The
    driver gives up a statement that has no answer after ``command_seconds``.
    """
    engine = create_async_engine(
        driver_url(url),
        hide_parameters=True,  # its errors would quote them in logs and in Temporal's histories
        pool_size=connections,
        max_overflow=0,
        pool_timeout=10,
        pool_recycle=1800,
        connect_args={
            "timeout": 5,
            "command_timeout": command_seconds,
            "server_settings": {
                "application_name": application,
                "statement_timeout": "60s",
                "idle_in_transaction_session_timeout": "60s",
            },
        },
    )
    event.listen(engine.sync_engine, "checkout", _refuse_closed)
    return engine


def _refuse_closed(connection: Any, _record: Any, _proxy: Any) -> None:
    """Make the pool replace a closed connection. The driver knows that it is closed; ``pool_pre_ping`` would ask the
    server, with three round trips before each piece of work.
    """
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


def autocommit(engine: AsyncEngine) -> AsyncConnection:
    """A connection for single queries, without the round trips of BEGIN and ROLLBACK."""
    known = _AUTOCOMMIT.get(engine)
    if known is None:
        known = _AUTOCOMMIT[engine] = engine.execution_options(isolation_level="AUTOCOMMIT")
    return known.connect()


_AUTOCOMMIT: WeakKeyDictionary[AsyncEngine, AsyncEngine] = WeakKeyDictionary()
"""For each engine, its copy with autocommit, which shares the pool. To make one costs as much as a query."""


def driver_url(url: str) -> str:
    """The same URL with the driver, as SQLAlchemy needs it."""
    return url.replace("postgresql://", "postgresql+asyncpg://", 1).replace("postgres://", "postgresql+asyncpg://", 1)


def is_unreachable(error: BaseException) -> bool:
    """Whether the database is away. False if the statement is wrong."""
    if isinstance(error, DBAPIError):
        state = str(getattr(error.orig, "sqlstate", None) or "")
        return error.connection_invalidated or not state or state[:2] in ("08", "28", "3D", "53", "57")
    return isinstance(error, UNREACHABLE)


def sql(statement: str) -> TextClause:
    """A statement as text, parsed for its ``:parameters`` once."""
    return _statement(statement)


async def rows(connection: AsyncConnection, statement: str, **parameters: Any) -> Sequence[AnyRow]:
    """All rows of a query."""
    return (await connection.execute(sql(statement), parameters)).all()


async def row(connection: AsyncConnection, statement: str, **parameters: Any) -> AnyRow | None:
    """The first row of a query, or None."""
    return (await connection.execute(sql(statement), parameters)).first()


async def value(connection: AsyncConnection, statement: str, **parameters: Any) -> Any:
    """The first column of the first row, or None."""
    return (await connection.execute(sql(statement), parameters)).scalar()


async def execute(connection: AsyncConnection, statement: str, **parameters: Any) -> int:
    """Execute a statement; returns the number of rows that it changed."""
    return (await connection.execute(sql(statement), parameters)).rowcount


async def driver(connection: AsyncConnection) -> "asyncpg.Connection[asyncpg.Record]":
    """The driver's own connection, in the same transaction. Raises `asyncpg.PostgresError` itself.

    Use it for statements with thousands of rows, which are slow in SQLAlchemy.
    """
    own: asyncpg.Connection[asyncpg.Record] | None = (await connection.get_raw_connection()).driver_connection
    assert own is not None, "a connection in use has a driver connection"
    if not own.is_in_transaction():
        await connection.execute(sql("SELECT"))  # SQLAlchemy begins its transaction with the first statement
    return own


async def notify(connection: AsyncConnection, message: str) -> None:
    """Send a notice to all `listen` loops when, and only if, this transaction commits."""
    await connection.execute(sql("SELECT pg_notify(:channel, :message)"), {"channel": CHANNEL, "message": message})


async def lock_until_commit(connection: AsyncConnection, *names: str) -> None:
    """Take the advisory locks of these names in this order; they are held until the transaction ends."""
    statement = "SELECT pg_advisory_xact_lock(hashtextextended(name, 0)) FROM unnest(CAST(:names AS text[])) AS name"
    await connection.execute(sql(statement), {"names": list(names)})


Ask = Callable[..., Coroutine[Any, Any, Any]]
"""Runs a query on the listening connection; returns its first value in the driver's own type."""


async def listen(
    url: str,
    on_message: Callable[[str], None],
    on_connection: Callable[[Ask | None], None],
    application: str = "airlock",
) -> None:
    """Call ``on_message`` for each committed `notify`, for ever. Reconnects by itself.

    Calls ``on_connection`` with an `Ask` when listening begins, and with None when the connection is lost. Notices are
    not kept, so a waiter must poll while there is no connection.
    """
    pause = 0.2
    while True:
        lost = asyncio.Event()
        connection: asyncpg.Connection[asyncpg.Record] | None = None
        try:
            connection = await asyncpg.connect(
                url, timeout=5, server_settings={"application_name": f"{application}-listen"}
            )
            connection.add_termination_listener(lambda _, lost=lost: lost.set())
            await connection.add_listener(CHANNEL, lambda *message: on_message(str(message[3])))
            ask = _in_turn(connection)
            on_connection(ask)
            pause = 0.2
            await _until_lost(ask, lost)
        except (*UNREACHABLE, OSError, asyncpg.InterfaceError) as error:
            log.warning("database.listen_failed", error=describe(error), retry_in=pause)
        finally:
            on_connection(None)
            if connection is not None:
                connection.terminate()
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5)


def _in_turn(connection: "asyncpg.Connection[asyncpg.Record]") -> Ask:
    one_at_a_time = asyncio.Lock()

    async def ask(query: str, *arguments: object) -> Any:
        async with one_at_a_time:
            return await connection.fetchval(query, *arguments, timeout=5)

    return ask


async def _until_lost(ask: Ask, lost: asyncio.Event) -> None:
    """Return when the connection is lost. A query every 15 s detects a connection that died unnoticed."""
    while not lost.is_set():
        try:
            async with asyncio.timeout(15):
                await lost.wait()
        except TimeoutError:
            await ask("SELECT 1")
