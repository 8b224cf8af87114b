"""The callbacks that are made at the same time, bounded in all, per user and per host."""

import asyncio
import time
from collections import Counter

from sqlalchemy.ext.asyncio import AsyncEngine

from fulfilment.callback_store import DueCallback, callbacks_due
from fulfilment.callbacks import CallbackSender
from models.outcomes import CallbackOutcome

AT_ONCE = 64
"""Limits the bodies in memory. Eight users whose receivers never answer take all of them, for one timeout at a time."""
PER_USER = 8
PER_HOST = 4
AHEAD = 4
"""Callbacks are read ahead, this many times as many as have places: one query serves many of them."""
READ_SECONDS = 0.5
"""Least time between two queries while some that were read ahead wait for places of their users or hosts."""


class CallbacksInFlight:
    """Starts callbacks as they become due and as places become free. A slow receiver takes places of its own only."""

    def __init__(self, engine: AsyncEngine, sender: CallbackSender, outcome: CallbackOutcome) -> None:
        self._engine = engine
        self._sender = sender
        self._outcome = outcome
        self._running: dict[asyncio.Task[None], DueCallback] = {}
        self._ahead: list[DueCallback] = []
        self._read_at = float("-inf")
        self.ended = asyncio.Event()
        """Set when a callback ended, until the next `start_due`."""

    def __len__(self) -> int:
        return len(self._running)

    async def start_due(self) -> None:
        """Start what is due and has a place. Raises the error of one that broke."""
        self.ended.clear()
        for task in [task for task in self._running if task.done()]:
            del self._running[task]
            task.result()
        self._start()
        if len(self._running) < AT_ONCE and (not self._ahead or time.monotonic() >= self._read_at + READ_SECONDS):
            async with self._engine.connect() as connection:
                self._ahead = await callbacks_due(
                    connection, AHEAD * AT_ONCE, AHEAD * PER_USER, AHEAD * PER_HOST, self._running.values()
                )
            self._read_at = time.monotonic()
            self._start()

    def _start(self) -> None:
        """Start those read ahead for which there are places; the others stay."""
        users = Counter(callback.user_id for callback in self._running.values())
        hosts = Counter(callback.host for callback in self._running.values())
        waiting: list[DueCallback] = []
        for callback in self._ahead:
            room = len(self._running) < AT_ONCE
            if room and users[callback.user_id] < PER_USER and hosts[callback.host] < PER_HOST:
                users[callback.user_id] += 1
                hosts[callback.host] += 1
                task = asyncio.create_task(self._sender.send(callback, self._outcome))
                task.add_done_callback(lambda _: self.ended.set())
                self._running[task] = callback
            else:
                waiting.append(callback)
        self._ahead = waiting

    async def finish(self) -> None:
        """Wait for those in flight. Each has a timeout."""
        if self._running:
            await asyncio.wait(self._running)

    async def cancel(self) -> None:
        """End all that are in flight. They are made again."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
