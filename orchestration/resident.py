"""Resident activities: they heartbeat, wait for notices, and return early when their worker stops."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pydantic import BaseModel
from temporalio import activity

from configuration.timing import HEARTBEAT_SECONDS
from storage.notices import NotificationListener, Subscription

ROUND_SECONDS = 120.0
"""How long one resident activity stays. The workflow then starts the next, so that its history shows the progress."""


Progress = TypeVar("Progress", bound=BaseModel)


def earlier_progress(kind: type[Progress]) -> Progress | None:
    """The details of the last heartbeat of an earlier attempt; None in a first attempt."""
    details = activity.info().heartbeat_details
    return kind.model_validate(details[0]) if details else None


@asynccontextmanager
async def heartbeating() -> AsyncIterator[Callable[[Any], None]]:
    """Heartbeat in the background during the block.

    The block gets a function that heartbeats with details. All later heartbeats repeat these details, in later attempts
    too, because a heartbeat without details would erase them.
    """
    details = list(activity.info().heartbeat_details)

    def beat_with(progress: Any) -> None:
        details[:] = [progress.model_copy() if isinstance(progress, BaseModel) else progress]
        activity.heartbeat(*details)

    async def beat() -> None:
        while True:
            activity.heartbeat(*details)
            await asyncio.sleep(HEARTBEAT_SECONDS)

    beating = asyncio.create_task(beat())
    try:
        yield beat_with
    finally:
        beating.cancel()


class Resident:
    """An activity that works, waits for a notice and works again, until its round is over or its worker stops."""

    def __init__(self, subscription: Subscription, stopping: "asyncio.Task[None]", beat: Callable[[Any], None]) -> None:
        self._subscription = subscription
        self._stopping = stopping
        self._ends_at = time.monotonic() + ROUND_SECONDS
        self.beat = beat
        """Heartbeat with these details, which later heartbeats repeat."""

    @property
    def is_over(self) -> bool:
        """Whether to return ``unfinished``, so that the workflow starts another activity."""
        return self._stopping.done() or time.monotonic() >= self._ends_at

    async def wait(self, seconds: float, until: asyncio.Event | None = None) -> None:
        """Return at a notice, at this event, when the worker stops, or after ``seconds`` at most."""
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
    """Heartbeat and listen for this notice during the block."""
    stopping = asyncio.create_task(activity.wait_for_worker_shutdown())
    try:
        with listener.subscribe(notice) as subscription:
            async with heartbeating() as beat:
                yield Resident(subscription, stopping, beat)
    finally:
        stopping.cancel()
