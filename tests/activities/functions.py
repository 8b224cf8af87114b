"""Functions that the tests execute: they remember that they ran, and some wait to be let go."""

import asyncio
from typing import Any

ran: list[Any] = []
waiting: list[str] = []
_gate = asyncio.Event()


def reset() -> None:
    global _gate
    ran.clear()
    waiting.clear()
    _gate = asyncio.Event()


def let_go() -> None:
    _gate.set()


async def rows() -> list[dict[str, int]]:
    ran.append("rows")
    return [{"n": 1}]


async def waits() -> list[int]:
    waiting.append("waits")
    await _gate.wait()
    return []


async def counts(n: int = 0) -> list[int]:
    ran.append(n)
    return []


def fails() -> list[int]:
    raise LookupError
