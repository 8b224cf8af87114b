"""What the generator is told, and what it says afterwards. Both are JSON. Times in seconds unless named otherwise."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self


@dataclass(frozen=True)
class Ask:
    """One call and the answer that is right."""

    method: str
    path: str
    body: str = ""
    status: int = 200
    contains: str = ""
    """What the answer's body must contain."""
    result: str = ""
    """Where it is set, the answer names a request, and its result is waited for: that must contain this text."""


@dataclass(frozen=True)
class Order:
    """One load: ``asks`` in turn, either on so many connections at once or so many a second whatever comes back."""

    port: int
    asks: tuple[Ask, ...]
    seconds: float
    connections: int = 0
    rate: float = 0.0
    scatter: float = 0.0
    """With a rate: by up to which share of the time to the next one each comes later, at random, the same each time.
    Evenly spaced ones stay at one phase of whatever is polled, and then it is that phase which is measured."""
    warm_up: float = 0.0
    """Before ``seconds`` begin; what begins in it is not counted."""
    patience: float = 60.0
    """After the end, for what is still under way."""
    headers: Mapping[str, str] = field(default_factory=dict)
    most: int = 0
    """With a rate: the load gives up at the first problem, and when more than so many are outstanding; 0: never."""

    def __post_init__(self) -> None:
        if (self.connections > 0) == (self.rate > 0):
            raise ValueError("a load has either connections or a rate")
        if not self.asks or self.seconds <= 0:
            raise ValueError("a load asks something, for some time")

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        return cls(**{**content, "asks": tuple(Ask(**ask) for ask in content["asks"])})


@dataclass(frozen=True)
class Outcome:
    """What came of a load."""

    begun: int
    good: int
    """Answered rightly, from first to last, the warm-up included."""
    problems: Mapping[str, int]
    """What was wrong, and how often."""
    unfinished: int
    """Without an answer when the patience ended."""
    counted: int
    """Answered rightly within ``seconds``."""
    rate: float
    """``counted`` per second."""
    latency_ms: Mapping[str, float]
    """p50, p90, p99 and max, of what began within ``seconds``; with a rate from when it was due to begin."""
    outstanding: tuple[int, ...]
    """Begun and not answered, at each full second of ``seconds``."""
    late_ms: float
    """With a rate: by how much the latest one began too late. More than some 100 says that the generator starved."""
    cpu_seconds: float
    """That the generator itself used."""
    gave_up: bool = False
    """Whether there was a problem, or more than ``most`` were outstanding, where that was set."""

    @property
    def wrong(self) -> int:
        """What was not answered rightly."""
        return self.unfinished + sum(self.problems.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        return cls(**{**content, "outstanding": tuple(content["outstanding"])})
