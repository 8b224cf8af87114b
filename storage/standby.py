"""Standing by for a notice: who does hears of each commit at once, and whoever commits can see that somebody does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncConnection

from models.streams import StreamName
from storage.database import Ask, value

GRACE_SECONDS = 1.0
"""What whoever stands by has not seen to after this long is told to Temporal: they may be held up, or frozen."""


def ready(stream: StreamName) -> str:
    """The notice that there are records to be sealed and sent."""
    return f"ready {stream}"


def received(stream: StreamName) -> str:
    """The notice that a batch was stored."""
    return f"received {stream}"


@dataclass(eq=False)
class Post:
    """What somebody who stands by has: ``said`` is set by each notice, and when notices were lost."""

    said: asyncio.Event = field(default_factory=asyncio.Event)
    is_lost: bool = False
    """Others see nobody here any more, and notices may have been missed."""


class Standby:
    """Lets one at a time in a process stand by for a notice. Another process may as well: the first may hang.

    Hand `hear` and `connected` to `storage.database.listen`: the lock by which others see that somebody stands by is
    held by the connection that notices come by, and goes with it, so that a killed process leaves nothing behind.
    """

    def __init__(self) -> None:
        self._posts: dict[str, Post] = {}
        self._ask: Ask | None = None

    def hear(self, notice: str) -> None:
        """A notice from the database."""
        if post := self._posts.get(notice):
            post.said.set()

    def connected(self, ask: Ask | None) -> None:
        """Notices come in again, or were lost: whoever stood by does no longer."""
        self._ask = ask
        for post in self._posts.values():
            post.is_lost = True
            post.said.set()

    @asynccontextmanager
    async def by(self, notice: str) -> AsyncIterator[Post | None]:
        """Stand by for the block; None where this process does already, or hears no notices. Look first: what was
        committed before has given its notice.
        """
        ask = self._ask
        if ask is None or notice in self._posts:
            yield None
            return
        post = self._posts[notice] = Post()
        try:
            await ask("SELECT pg_advisory_lock_shared(hashtextextended($1, 0))", notice)
            try:
                yield post
            finally:
                if not post.is_lost:  # shielded: left behind, it would say for ever that somebody is here
                    await asyncio.shield(ask("SELECT pg_advisory_unlock_shared(hashtextextended($1, 0))", notice))
        finally:
            del self._posts[notice]


async def somebody_stands_by(connection: AsyncConnection, notice: str) -> bool:
    """Whether somebody hears this notice. Ask after the commit that gives it: who begins later looks first."""
    found: bool = await value(
        connection,
        """
        SELECT EXISTS (
            SELECT FROM pg_locks, (SELECT hashtextextended(:name, 0) AS key) AS wanted
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                AND (CAST(classid AS bigint) << 32) | CAST(objid AS bigint) = key)
        """,
        name=notice,
    )
    return found
