"""The executors of the workloads' request types: their answers are the same in every run."""

import random

WORDS = 130
"""They make a result of 1 KB."""


async def constant(number: int = 0) -> list[dict[str, int]]:
    """A small answer, the same for every request."""
    return [{"n": 1}]


async def kilobyte(number: int) -> list[dict[str, str]]:
    """An answer of 1 KB that depends on ``number``."""
    return [{"words": words(number)}]


def words(number: int) -> str:
    """Hexadecimal words from the seed ``number``; they compress about as real results do."""
    draw = random.Random(number)  # noqa: S311 - not for cryptography
    return " ".join(f"{draw.randrange(4096):06x}" for _ in range(WORDS))
