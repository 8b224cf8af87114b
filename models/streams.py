"""Networks, streams and references to batches."""

import re
from enum import StrEnum

from pydantic import BaseModel, ConfigDict

from models.wording import counted

PULL_WORKFLOW_ID = "pull-requests"
"""The id of the workflow that pulls requests, for ever."""

GENESIS = bytes(32)
"""The previous hash of an epoch's first batch."""


class Network(StrEnum):
    """One of the two sides of the link."""

    REQUEST = "request"
    RESPONSE = "response"

    @property
    def other(self) -> "Network":
        """The network at the other end of the link."""
        return Network.REQUEST if self is Network.RESPONSE else Network.RESPONSE


class StreamName(StrEnum):
    """A named, ordered, signed log that crosses the link in one direction."""

    SETTINGS = "settings"
    REQUESTS = "requests"
    RESULTS = "results"
    HEALTH = "health"

    @property
    def sender(self) -> Network:
        """The network that seals this stream's batches."""
        return Network.REQUEST if self is StreamName.REQUESTS else Network.RESPONSE

    @property
    def receiver(self) -> Network:
        """The network that applies this stream's batches."""
        return Network.RESPONSE if self is StreamName.REQUESTS else Network.REQUEST

    @property
    def is_snapshot(self) -> bool:
        """Whether the newest batch replaces the earlier ones. Otherwise every record counts."""
        return self in (StreamName.SETTINGS, StreamName.HEALTH)


class BatchRef(BaseModel):
    """Names one batch or a range of batches. Workflows pass this instead of the data."""

    model_config = ConfigDict(frozen=True)

    stream: StreamName
    epoch: int
    sequence: int
    records: int = 0
    first: int | None = None
    """The first batch of a range, which ends with ``sequence``; None for a single batch."""

    @property
    def begin(self) -> int:
        """The number of the first batch."""
        return self.sequence if self.first is None else self.first

    @property
    def batches(self) -> int:
        """The number of batches."""
        return self.sequence - self.begin + 1

    @property
    def _numbers(self) -> str:
        return f"{self.epoch}." + (f"{self.begin}-{self.sequence}" if self.batches > 1 else f"{self.sequence}")

    def __str__(self) -> str:
        return f"{self.stream} {self._numbers}"

    @property
    def summary(self) -> str:
        """For the Web UI: the batches and their number of records."""
        return f"{self}: {counted(self.records, 'record')}"

    def workflow_id(self, verb: str) -> str:
        """The id of the workflow that does ``verb`` to these batches, the same at every attempt."""
        return f"{verb}-{self.stream}-{self._numbers}"


_WORKFLOW_ID = re.compile(r"[a-z]+-(?P<stream>[a-z]+)-(?P<epoch>\d+)\.(?:(?P<first>\d+)-)?(?P<sequence>\d+)")


def named_by(workflow_id: str) -> BatchRef | None:
    """The batches that a workflow id names, without their number of records. None for another kind of id."""
    found = _WORKFLOW_ID.fullmatch(workflow_id)
    if found is None or found["stream"] not in list(StreamName):
        return None
    return BatchRef(
        stream=StreamName(found["stream"]),
        epoch=int(found["epoch"]),
        sequence=int(found["sequence"]),
        first=int(found["first"]) if found["first"] else None,
    )
