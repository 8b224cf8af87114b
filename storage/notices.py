"""Waiting for a database's notices: one connection of a process listens, and any number of waiters subscribe."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from models.streams import StreamName
from storage.database import Ask

LISTENING_POLL_SECONDS = 10.0
"""How often a waiter polls while notices come in, in case one was lost."""
DEAF_POLL_SECONDS = 1.0
"""How often a waiter polls while notices do not come in."""

FINISHED = "finished"
"""The notice that requests are finished."""


def ready(stream: StreamName) -> str:
    """The notice that there are records to seal and send."""
    return f"ready {stream}"


def received(stream: StreamName) -> str:
    """The notice that a batch was stored."""
    return f"received {stream}"


class Subscription:
    """One waiter for a notice. Look for work first, then wait: earlier commits send no further notice."""

    def __init__(self, listener: "NotificationListener") -> None:
        self._listener = listener
        self._heard = asyncio.Event()

    def hear(self) -> None:
        """Wake the waiter."""
        self._heard.set()

    async def wait(self, seconds: float) -> None:
        """Return at a notice, at once if one came since the last call, or when it is time to poll.

        The wait takes ``seconds`` at most.
        """
        poll = LISTENING_POLL_SECONDS if self._listener.is_listening else DEAF_POLL_SECONDS
        try:
            async with asyncio.timeout(min(seconds, poll)):
                await self._heard.wait()
        except TimeoutError:
            pass
        self._heard.clear()


class NotificationListener:
    """Passes notices to their subscribers. Its `hear` and `connected` are callbacks for `storage.database.listen`."""

    def __init__(self) -> None:
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        self.is_listening = False

    def hear(self, notice: str) -> None:
        """Wake the subscribers of this notice."""
        for subscription in self._subscriptions.get(notice, ()):
            subscription.hear()

    def connected(self, ask: Ask | None) -> None:
        """Wake all subscribers: listening began, or the connection was lost."""
        self.is_listening = ask is not None
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.hear()

    @contextmanager
    def subscribe(self, notice: str) -> Iterator[Subscription]:
        """Subscribe to this notice during the block."""
        subscription = Subscription(self)
        self._subscriptions[notice].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[notice].discard(subscription)
