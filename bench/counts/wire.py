"""Every round trip to PostgreSQL that this process makes, counted where asyncpg speaks the protocol.

That is below SQLAlchemy, so that a COPY, a second driver layer and what a pool does by itself are counted as well.
Not counted: preparing a statement, which each connection does once, and what a new connection asks before its use.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import asyncpg.protocol

from bench.counts.counting import Tally

LOOKS: ContextVar[list[str] | None] = ContextVar("looks", default=None)
"""Where set, the ends of transactions that are made on its behalf are noted there."""

OWN_LOOKS = "counts"
"""The application name of the measurement's own connections, which are not counted."""
_SETTING_UP = ("typeinfo", "'jit'", "pg_catalog.", "pg_type", "show standard_conforming", "transaction isolation level")
"""In what asyncpg and SQLAlchemy ask of a new connection, and of types that are new to it."""
_ENDS = ("COMMIT", "ROLLBACK")
_SPOKEN = ("query", "bind_execute", "bind_execute_many", "bind", "execute", "close_portal", "copy_in", "copy_out")


class Statements:
    """What each database was told: (database, statement) → times; ``in_flight`` have no answer yet."""

    def __init__(self) -> None:
        self.told: Counter[tuple[str, str]] = Counter()
        self.in_flight = 0

    def since(self, before: "Counter[tuple[str, str]]") -> "dict[str, Tally]":
        """By database, what was told since this copy of ``told``."""
        tallies: dict[str, Tally] = {}
        for (database, statement), times in (self.told - before).items():
            tallies.setdefault(database, Tally()).add(statement, times)
        return tallies


@contextmanager
def counting_statements() -> Iterator[Statements]:
    """Count on all connections that are opened while the block runs."""
    statements, original = Statements(), asyncpg.protocol.Protocol
    asyncpg.protocol.Protocol = _counting(original, statements)  # type: ignore[misc]
    try:
        yield statements
    finally:
        asyncpg.protocol.Protocol = original  # type: ignore[misc]


def _counting(protocol: Any, statements: Statements) -> Any:
    """A subclass of asyncpg's protocol that notes what it is told."""

    def __init__(self: Any, addr: Any, connected: Any, params: Any, *more: Any) -> None:
        protocol.__init__(self, addr, connected, params, *more)
        self.counted_database = params.database
        application = (params.server_settings or {}).get("application_name", "")
        self.is_own = application == OWN_LOOKS or application.endswith("-listen")  # that one asks by the clock

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
