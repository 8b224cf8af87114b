"""What activities that stay have in common: heartbeats, notices, and an early end when their worker stops."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel
from temporalio import activity

from storage.notices import NotificationListener, Subscription

EVERY_SECONDS = 3.0
"""A third of the heartbeat timeout: two may be lost before an attempt is given up for dead."""
ROUND_SECONDS = 120.0
"""How long one activity stays. After it the workflow starts another one, so that its history shows what was done."""


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Callable[[Any], None]]:
    """Beat in the background for as long as the block runs.

    The block gets a function that beats with details. All beats after it, those of later attempts as well, repeat them,
    since one without would take them away.
    """
    details = list(activity.info().heartbeat_details)

    def beat_with(progress: Any) -> None:
        details[:] = [progress.model_copy() if isinstance(progress, BaseModel) else progress]
        activity.heartbeat(*details)

    async def beat() -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(EVERY_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield beat_with
    finally:
        beating.cancel()


class Resident:
    """An activity that stays: it works, then waits for a notice, until its round is over or its worker stops."""

    def __init__(self, subscription: Subscription, stopping: "asyncio.Task[None]", beat: Callable[[Any], None]) -> None:
        self._subscription = subscription
        self._stopping = stopping
        self._ends_at = time.monotonic() + ROUND_SECONDS
        self.beat = beat
        """Heartbeat with these details, which later beats repeat."""

    @property
    def is_over(self) -> bool:
        """Whether to return ``unfinished``, so that the workflow starts another activity."""
        return self._stopping.done() or time.monotonic() >= self._ends_at

    async def wait(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Return when there may be something to do: at a notice, at this event, when the worker stops, or after
        ``seconds`` at most.
        """
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._subscription.wait(seconds))]
        if until is not None:
            waits.append(asyncio.create_task(until.wait()))
        try:
            await asyncio.wait((*waits, self._stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


@asynccontextmanager
async def resident(listener: NotificationListener, notice: str) -> AsyncIterator[Resident]:
    """Stay for the block: heartbeats go on, and this notice is heard."""
    stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
    try:
        with listener.subscribe(notice) as subscription:
            async with heartbeating() as beat:
                yield Resident(subscription, stopping, beat)
    finally:
        stopping.cancel()
