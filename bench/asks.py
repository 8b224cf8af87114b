"""The requests of the figures: one airport each, some fifty in turn, so that answers are cheap and differ."""

from pathlib import Path

import orjson

from bench.load.order import Ask
from chaos.workload import AIRPORTS

CODES = AIRPORTS[:-2]
"""Codes of existing airports."""


def submissions(*, answered: bool = False, prefix: str = "") -> tuple[Ask, ...]:
    """Submissions of one request each, for each airport; ``answered``: wait for the result and check it."""
    return tuple(
        Ask(
            "POST",
            f"{prefix}/v1/requests",
            orjson.dumps({"type": "airport", "params": {"iata": code}}).decode(),
            202,
            '"id":"',
            f'"iata":"{code}"' if answered else "",
        )
        for code in CODES
    )


def fresh(root: Path, name: str) -> Path:
    """The path of a directory that does not exist yet, for one more start of a contestant."""
    return next(
        path for number in range(1, 10_000) if not (path := root / f"{name.replace(' ', '-')}-{number}").exists()
    )
