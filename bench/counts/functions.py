"""What the requests of the workloads ask for: answers that are the same in every run."""

import random

WORDS = 130
"""So many make a result of 1 KB."""


async def constant(number: int = 0) -> list[dict[str, int]]:
    """A small answer, whatever was asked."""
    return [{"n": 1}]


async def kilobyte(number: int) -> list[dict[str, str]]:
    """An answer of 1 KB that differs by its number."""
    return [{"words": words(number)}]


def words(number: int) -> str:
    """Hexadecimal words, drawn from a seed, so that they compress as results do."""
    draw = random.Random(number)  # noqa: S311 - nobody gains by guessing it
    return " ".join(f"{draw.randrange(4096):06x}" for _ in range(WORDS))
