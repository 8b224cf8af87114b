"""Waiting for the notices of a database: one connection of a process listens, and many may wait for what it hears."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from models.streams import StreamName
from storage.database import Ask

LISTENING_POLL_SECONDS = 10.0
"""How often a waiter looks without a notice, while notices come in: only should one have been lost."""
DEAF_POLL_SECONDS = 1.0
"""How often a waiter looks while notices do not come in."""

FINISHED = "finished"
"""The notice that requests have an outcome."""


def ready(stream: StreamName) -> str:
    """The notice that there are records to seal and send."""
    return f"ready {stream}"


def received(stream: StreamName) -> str:
    """The notice that a batch was stored."""
    return f"received {stream}"


class Subscription:
    """One waiter's view of a notice. Look first, then wait: what was committed before has given its notice."""

    def __init__(self, listener: "NotificationListener") -> None:
        self._listener = listener
        self._heard = asyncio.Event()

    def hear(self) -> None:
        """Have the waiter look."""
        self._heard.set()

    async def wait(self, seconds: float) -> None:
        """Return at the next notice, at once if one came since the last call, or when it is time to look without one;
        after ``seconds`` at most.
        """
        poll = LISTENING_POLL_SECONDS if self._listener.is_listening else DEAF_POLL_SECONDS
        try:
            async with asyncio.timeout(min(seconds, poll)):
                await self._heard.wait()
        except TimeoutError:
            pass
        self._heard.clear()


class NotificationListener:
    """Passes each notice on to those who wait for it. Hand `hear` and `connected` to `storage.database.listen`."""

    def __init__(self) -> None:
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self.is_listening = False

    def hear(self, notice: str) -> None:
        """A notice from the database."""
        for subscription in self._subscriptions.get(notice, ()):
            subscription.hear()

    def connected(self, ask: Ask | None) -> None:
        """Notices come in again, or were lost: everybody looks once."""
        self.is_listening = ask is not None
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.hear()

    @contextmanager
    def subscribe(self, notice: str) -> Iterator[Subscription]:
        """Hear this notice for the block."""
        subscription = Subscription(self)
        self._subscriptions[notice].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[notice].discard(subscription)
