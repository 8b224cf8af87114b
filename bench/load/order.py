"""The order and the outcome of a load, both JSON. Times in seconds unless the name says otherwise."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Self


@dataclass(frozen=True)
class Ask:
    """One call and its right answer."""

    method: str
    path: str
    body: str = ""
    status: int = 200
    contains: str = ""
    """Text that the answer's body must contain."""
    result: str = ""
    """If set: the answer names a request; its result is waited for and must contain this text."""


@dataclass(frozen=True)
class Order:
    """One load: ``asks`` in turn, on a number of connections, or at a rate whatever the answers."""

    port: int
    asks: tuple[Ask, ...]
    seconds: float
    connections: int = 0
    rate: float = 0.0
    scatter: float = 0.0
    """With a rate: each begins later by a random share, up to this one, of the interval; the same in each run.
    Evenly spaced calls would always meet the same phase of a polling server."""
    warm_up: float = 0.0
    """Before ``seconds`` begin; calls that begin in it do not count."""
    patience: float = 60.0
    """After the end, for open calls."""
    headers: Mapping[str, str] = field(default_factory=dict)
    most: int = 0
    """With a rate: the load ends at the first problem, and when more than ``most`` are outstanding; 0: never."""

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
    """The result of a load."""

    begun: int
    good: int
    """Right answers, the warm-up included."""
    problems: Mapping[str, int]
    """Problem → times."""
    unfinished: int
    """Calls without an answer at the end of the patience."""
    counted: int
    """Right answers within ``seconds``."""
    rate: float
    """``counted`` per second."""
    latency_ms: Mapping[str, float]
    """p50, p90, p99 and max, of calls that began within ``seconds``; with a rate, since they were due."""
    outstanding: tuple[int, ...]
    """Open calls at each full second of ``seconds``."""
    late_ms: float
    """With a rate: the longest delay of a beginning. More than some 100 means that the generator starved."""
    cpu_seconds: float
    """CPU time of the generator itself."""
    gave_up: bool = False
    """Whether the load ended early because of ``most``."""

    @property
    def wrong(self) -> int:
        """Number of calls without a right answer."""
        return self.unfinished + sum(self.problems.values())

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        content = json.loads(text)
        return cls(**{**content, "outstanding": tuple(content["outstanding"])})
