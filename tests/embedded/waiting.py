"""Conditions that the tests of the embedded servers wait for, in place of sleeping."""

import asyncio
import io
import time
from collections.abc import Callable

import psutil


class Screen(io.StringIO):
    """Stands for the terminal; a test waits for what appears on it."""

    async def shows(self, text: str, patience: float = 20.0) -> None:
        """Return once the text is there."""
        await eventually(lambda: text in self.getvalue(), patience, lambda: f"{text!r} in:\n{self.getvalue()}")


async def eventually(holds: Callable[[], bool], patience: float = 20.0, what: Callable[[], str] = lambda: "") -> None:
    """Wait for a condition; fails the test if it does not come true within ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, f"not within {patience:g} s: {what()}"
        await asyncio.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
