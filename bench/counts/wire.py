"""Counts every round trip of this process to PostgreSQL, in asyncpg's protocol class.

This is below SQLAlchemy, so a COPY and the statements of the pool are counted as well. Not counted: preparing a
statement, which each connection does once, and the queries with which a new connection is set up.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import asyncpg.protocol

from bench.counts.counting import Tally

LOOKS: ContextVar[list[str] | None] = ContextVar("looks", default=None)
"""If set, the ends of this context's transactions are appended to it."""

OWN_LOOKS = "counts"
"""Application name of the measurement's own connections, which are not counted."""
_SETTING_UP = ("typeinfo", "'jit'", "pg_catalog.", "pg_type", "show standard_conforming", "transaction isolation level")
"""Parts of the statements with which asyncpg and SQLAlchemy set up a connection or look up a type."""
_ENDS = ("COMMIT", "ROLLBACK")
_SPOKEN = ("query", "bind_execute", "bind_execute_many", "bind", "execute", "close_portal", "copy_in", "copy_out")


class Statements:
    """Statements by database: (database, statement) → times; ``in_flight``: number without an answer yet."""

    def __init__(self) -> None:
        self.told: Counter[tuple[str, str]] = Counter()
        self.in_flight = 0

    def since(self, before: "Counter[tuple[str, str]]") -> "dict[str, Tally]":
        """The tally of each database since ``before``, a copy of ``told``."""
        tallies: dict[str, Tally] = {}
        for (database, statement), times in (self.told - before).items():
            tallies.setdefault(database, Tally()).add(statement, times)
        return tallies


@contextmanager
def counting_statements() -> Iterator[Statements]:
    """Count the statements of all connections that are opened during the block."""
    statements, original = Statements(), asyncpg.protocol.Protocol
    asyncpg.protocol.Protocol = _counting(original, statements)  # type: ignore[misc]
    try:
        yield statements
    finally:
        asyncpg.protocol.Protocol = original  # type: ignore[misc]


def _counting(protocol: Any, statements: Statements) -> Any:
    """A subclass of asyncpg's protocol that counts statements."""

    def __init__(self: Any, addr: Any, connected: Any, params: Any, *more: Any) -> None:
        protocol.__init__(self, addr, connected, params, *more)
        self.counted_database = params.database
        application = (params.server_settings or {}).get("application_name", "")
        self.is_own = application == OWN_LOOKS or application.endswith("-listen")  # it pings periodically

    def spoken(name: str) -> Any:
        original = getattr(protocol, name)

        async def counted(self: Any, *arguments: Any, **named: Any) -> Any:
            if self.is_own:
                return await original(self, *arguments, **named)
            subject = next(iter((*arguments, *named.values())))  # a prepared statement, or text
            text = " ".join(str(getattr(subject, "query", subject)).split())
            if any(mark in text for mark in _SETTING_UP):
                return await original(self, *arguments, **named)
            statements.told[self.counted_database, text] += 1
            statements.in_flight += 1
            try:
                return await original(self, *arguments, **named)
            finally:
                statements.in_flight -= 1
                if text.startswith(_ENDS) and (looks := LOOKS.get()) is not None:
                    looks.append(text)

        return counted

    body = {name: spoken(name) for name in _SPOKEN}
    return type("CountingProtocol", (protocol,), {"__init__": __init__, **body})
