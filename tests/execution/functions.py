"""What an operator's own module might hold, the careless and the broken included."""

import asyncio
import itertools
import math
import sys
import threading
from collections.abc import Iterator
from typing import Any

from execution.answer import Answer, ExecutionFailed

SECRET = "postgresql://reader:hunter2@10.0.0.1/ledger"
calls: list[dict[str, Any]] = []
release = threading.Event()


def rows(count: int = 2) -> list[dict[str, int]]:
    calls.append({"count": count})
    return [{"n": number} for number in range(count)]


async def rows_later(count: int = 2) -> list[dict[str, int]]:
    await asyncio.sleep(0)
    return [{"n": number} for number in range(count)]


def where_it_ran() -> list[str]:
    return [threading.current_thread().name]


def forever() -> Iterator[int]:
    return itertools.count()


def raises() -> list[int]:
    raise ValueError(f"cannot reach {SECRET}")


async def raises_later() -> list[int]:
    raise ValueError(f"cannot reach {SECRET}")


def wrong_inside() -> list[int]:
    return [1 + "a"]  # type: ignore[operator]


def exits() -> list[int]:
    sys.exit(3)


async def exits_later() -> list[int]:
    sys.exit(3)


async def cancels_itself() -> list[int]:
    raise asyncio.CancelledError


def ends_an_iteration() -> list[int]:
    raise StopIteration


def refuses() -> list[int]:
    raise ExecutionFailed("no-such-account", "there is no account of this number")


def refuses_with_a_strange_reason() -> list[int]:
    raise ExecutionFailed("a\0b", "what")


def raises_lone_surrogate() -> list[int]:
    raise ExecutionFailed("odd-text", "name \ud800 is odd")


def no_rows() -> int:
    return 5


def text() -> str:
    return "abc"


def strange_values() -> list[Any]:
    return [{"nan": math.nan, "lone": "\ud800", "big": 2**70, "set": frozenset({1}), 5: "five", "inf": math.inf}]


def only_nan() -> list[Any]:
    return [{"nan": math.nan}]


def circular() -> list[Any]:
    row: list[Any] = []
    row.append(row)
    return [row]


def too_big_a_number() -> list[Any]:
    return [10**400]


def own_answer() -> Answer:
    return Answer([b'{\n"a":\r1}'], 7)


def broken_answer() -> Answer:
    return Answer([b'{"a":'], 1)


def answer_with_strange_total() -> Answer:
    return Answer([b"1"], 2**70)


def hangs() -> list[int]:
    release.wait(30)
    return []


async def hangs_later() -> list[int]:
    await asyncio.Event().wait()
    return []


not_callable = 5


def wide_rows() -> Iterator[str]:
    for _ in range(3000):
        yield "x" * 1_000_000
