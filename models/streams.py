"""Networks, streams and references to what crosses between them."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from uuid import UUID

from pydantic import BaseModel, ConfigDict

GENESIS = bytes(32)
"""The hash before the first batch of an epoch."""

MOST_PARTITIONS = 8
"""Of a log stream. A change of this number is a change of the protocol: it says which names there are."""


class Network(StrEnum):
    """One of the two sides of the link."""

    REQUEST = "request"
    RESPONSE = "response"


class StreamName(StrEnum):
    """A named, ordered, signed log that crosses the link in one direction.

    A log stream may be partitioned by user: partition 0 has the kind's own name, the others are ``requests.1`` to
    ``requests.7`` and ``results.1`` to ``results.7``, each a stream of its own in everything. Those names are found by
    their value and not listed: who goes through the four members, or describes them, sees nothing of partitions that
    nobody uses (`storage.partitions.streams_in_use` gives those that somebody does).
    """

    SETTINGS = "settings"
    REQUESTS = "requests"
    RESULTS = "results"
    HEALTH = "health"

    @classmethod
    def _missing_(cls, value: object) -> "StreamName | None":
        """A partition by its name; the same object each time, as of the members that are listed."""
        kind, dot, number = value.partition(".") if isinstance(value, str) else ("", "", "")
        if kind not in ("requests", "results") or number not in _NUMBERS:
            return None
        name = kind + dot + number
        known = cls._value2member_map_.get(name)
        if known is None:
            member = str.__new__(cls, name)
            member._name_, member._value_ = name.upper().replace(".", "_"), name
            known = cls._value2member_map_.setdefault(name, member)
        assert isinstance(known, StreamName)
        return known

    @property
    def kind(self) -> "StreamName":
        """The stream that this is a partition of: what it carries, and which way."""
        return StreamName(str(self).partition(".")[0])

    @property
    def number(self) -> int:
        """Which partition of its kind it is, from 0."""
        return int(str(self).partition(".")[2] or 0)

    def at(self, number: int) -> "StreamName":
        """This partition of the same kind. Raises `ValueError` for one that there cannot be."""
        return StreamName(f"{self.kind}.{number}") if number else self.kind

    def partitions(self, count: int = MOST_PARTITIONS) -> "list[StreamName]":
        """The first partitions of this kind, itself first."""
        return [self.at(number) for number in range(count)]

    @property
    def sender(self) -> Network:
        """The network that seals this stream's batches."""
        return Network.REQUEST if self.kind is StreamName.REQUESTS else Network.RESPONSE

    @property
    def receiver(self) -> Network:
        """The network that applies this stream's batches."""
        return Network.RESPONSE if self.kind is StreamName.REQUESTS else Network.REQUEST

    @property
    def is_snapshot(self) -> bool:
        """Whether the newest batch supersedes those before it; otherwise every record counts."""
        return self in (StreamName.SETTINGS, StreamName.HEALTH)


_NUMBERS = frozenset(str(number) for number in range(1, MOST_PARTITIONS))
LOG_STREAMS = (StreamName.REQUESTS, StreamName.RESULTS)
"""Those that may be partitioned."""


def partition_of(user_id: UUID, partitions: int) -> int:
    """The partition that this user's records go in: the same for ever, while there are so many, in every process."""
    if partitions == 1:
        return 0
    return int.from_bytes(hashlib.sha256(user_id.bytes).digest()[:8]) % partitions


def pull_workflow_id(stream: StreamName) -> str:
    """The workflow that pulls this stream for ever."""
    return f"pull-{stream.kind}" + (f"-{stream.number}" if stream.number else "")


def in_order(streams: Sequence[StreamName]) -> list[StreamName]:
    """Each once, by kind as they are listed, each kind's partitions by their number."""
    kinds = list(StreamName)
    return sorted(set(streams), key=lambda stream: (kinds.index(stream.kind), stream.number))


class BatchRef(BaseModel):
    """Names one batch, or several that follow one another; what workflows pass about instead of the data itself."""

    model_config = ConfigDict(frozen=True)

    stream: StreamName
    epoch: int
    sequence: int
    records: int = 0
    first: int | None = None
    """The first of several batches, of which ``sequence`` is the last; None where it is one alone."""

    @property
    def begin(self) -> int:
        """The number of the first batch."""
        return self.sequence if self.first is None else self.first

    @property
    def batches(self) -> int:
        """How many batches these are."""
        return self.sequence - self.begin + 1

    @property
    def _numbers(self) -> str:
        return f"{self.epoch}." + (f"{self.begin}-{self.sequence}" if self.batches > 1 else f"{self.sequence}")

    def __str__(self) -> str:
        return f"{self.stream} {self._numbers}"

    def workflow_id(self, verb: str) -> str:
        """The id of the workflow that does ``verb`` to them, the same at every try."""
        return f"{verb}-{self.stream}-{self._numbers}"
