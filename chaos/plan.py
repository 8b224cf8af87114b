"""The plan of faults: a pure function of a seed and a duration, so that a run can be repeated."""

import random
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

PROCESSES = ("temporal", "postgres", "redis", "request-api", "response-api", "request-worker", "response-worker")
LINK = "link"

BEGIN = 5.0
"""Seconds without faults at the beginning, so that the first one meets a system under load."""
QUIET = 30.0
"""Seconds without faults at the end; a fifth of the run if that is less."""
GAP = (6.0, 16.0)
"""Seconds from the end of a fault to the beginning of the next, unless they overlap; from and to."""
OVERLAP = 0.3
"""Probability that a fault begins during the previous one, or right after it."""


class FaultKind(StrEnum):
    """Kinds of faults."""

    KILL = "kill"
    """SIGKILL. The supervisor restarts the process."""
    STOP = "stop"
    """SIGSTOP to the process and its children, and SIGCONT after `Fault.seconds`."""
    RESTART = "restart"
    """The signal in `parameters`, at which the process shuts down in order."""
    FLUSH = "flush"
    """FLUSHALL: the cache is emptied."""
    CUT = "link-cut"
    """All connections of the link are reset, and new ones are refused."""
    SLOW = "link-slow"
    """All data is delayed, and the bandwidth is limited."""
    DUPLICATE = "link-duplicate"
    """Whole requests are sent again on another connection, at once and later; or bytes of answers are sent twice."""
    CORRUPT = "link-corrupt"
    """Bytes are changed, in one direction."""
    TRUNCATE = "link-truncate"
    """Connections end in the middle of a message, in one direction."""


@dataclass(frozen=True)
class Fault:
    """One fault. Times in seconds since the beginning of the load."""

    at: float
    kind: FaultKind
    target: str
    """Name of a process, or the link."""
    seconds: float = 0.0
    """Duration; 0 for a momentary fault."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def until(self) -> float:
        """Time of its end."""
        return self.at + self.seconds

    def as_json(self) -> dict[str, Any]:
        """Output of `--plan --json`."""
        return asdict(self) | {"kind": self.kind.value, "parameters": dict(self.parameters)}


@dataclass(frozen=True)
class _Card:
    """A fault without its time."""

    kind: FaultKind
    target: str
    fixed: Mapping[str, Any] = field(default_factory=dict)


_CARDS = (
    *(_Card(FaultKind.KILL, name) for name in PROCESSES),
    *(_Card(FaultKind.STOP, name) for name in PROCESSES),
    _Card(FaultKind.RESTART, "postgres", {"signal": "SIGINT"}),  # fast shutdown
    _Card(FaultKind.RESTART, "postgres", {"signal": "SIGQUIT"}),  # immediate shutdown, and recovery afterwards
    _Card(FaultKind.RESTART, "temporal", {"signal": "SIGTERM"}),
    _Card(FaultKind.FLUSH, "redis"),
    _Card(FaultKind.CUT, LINK),
    _Card(FaultKind.SLOW, LINK),
    _Card(FaultKind.DUPLICATE, LINK, {"direction": "to-server"}),
    _Card(FaultKind.DUPLICATE, LINK, {"direction": "to-client"}),
    *(
        _Card(kind, LINK, {"direction": to})
        for kind in (FaultKind.CORRUPT, FaultKind.TRUNCATE)
        for to in ("to-server", "to-client")
    ),
)
"""All faults. They are dealt like cards: none is repeated before all were used."""


def make_plan(seed: int, minutes: float, kinds: Collection[FaultKind] = tuple(FaultKind)) -> list[Fault]:
    """The faults of a run, in order. The same arguments give the same faults on every machine.

    A ten-minute plan of all kinds contains every kind. Raises ``ValueError`` if no fault fits.
    """
    chance = random.Random(f"airlock chaos {seed}")  # noqa: S311, it must be the same again, not secret
    total = minutes * 60
    last = total - min(QUIET, total / 5)
    deal = _deal(chance, kinds)
    plan: list[Fault] = []
    at = min(BEGIN, total / 10)
    while True:
        fault = _fault(next(deal), at, chance)
        if fault.until > last:
            break
        plan.append(fault)
        if chance.random() < OVERLAP:
            at = chance.uniform(fault.at + 0.2, fault.until + 1.5)
        else:
            at = max(each.until for each in plan) + chance.uniform(*GAP)
        at = round(at, 1)
    if not plan:
        raise ValueError(f"in {minutes:g} minutes there is no room for a fault; take half a minute at least")
    return plan


def _deal(chance: random.Random, kinds: Collection[FaultKind]) -> Iterator[_Card]:
    """An endless sequence of cards: in each round all of them, the first of each kind before the second of any."""
    chosen = [card for card in _CARDS if card.kind in kinds]
    while chosen:
        chance.shuffle(chosen)
        seen: dict[FaultKind, int] = {}
        rank: dict[int, int] = {}
        for place, card in enumerate(chosen):
            rank[place] = seen[card.kind] = seen.get(card.kind, -1) + 1
        yield from (chosen[place] for place in sorted(rank, key=lambda place: (rank[place], place)))
    raise ValueError(f"name at least one kind of fault: {', '.join(FaultKind)}")


def _fault(card: _Card, at: float, chance: random.Random) -> Fault:
    seconds, parameters = 0.0, dict(card.fixed)
    match card.kind:
        case FaultKind.STOP:
            seconds = chance.uniform(2, 12)
        case FaultKind.CUT:
            seconds = chance.uniform(2, 10)
        case FaultKind.SLOW:
            seconds = chance.uniform(5, 12)
            parameters |= {
                "latency": round(chance.uniform(0.1, 1.0), 2),
                "bytes_per_second": chance.choice((4, 16, 64)) << 10,
            }
        case FaultKind.DUPLICATE | FaultKind.CORRUPT | FaultKind.TRUNCATE:
            seconds = chance.uniform(4, 10)
            parameters |= {"share": round(chance.uniform(0.2, 0.8), 2)}
    if card.target == LINK:
        parameters["seed"] = chance.randrange(1 << 32)
    return Fault(at, card.kind, card.target, round(seconds, 1), parameters)
