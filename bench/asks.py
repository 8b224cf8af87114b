"""What the figures ask: one airport per request, each of some fifty in turn, so that answers cost little and differ."""

from pathlib import Path

import orjson

from bench.load.order import Ask
from chaos.workload import AIRPORTS

CODES = AIRPORTS[:-2]
"""Without those that are nobody's."""


def submissions(*, answered: bool = False, prefix: str = "") -> tuple[Ask, ...]:
    """One request each, for another airport each; with ``answered`` the result is waited for and looked at."""
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
    """A directory that is not there yet, for one more start of a contestant."""
    return next(
        path for number in range(1, 10_000) if not (path := root / f"{name.replace(' ', '-')}-{number}").exists()
    )
