"""The request network's side of verifying and repairing, called over the signed link."""

from dataclasses import dataclass
from typing import ClassVar, TypeVar

from pydantic import BaseModel, ValidationError

from exchange.audit.summaries import (
    Audit,
    Finding,
    Orphans,
    RangeDigest,
    Repaired,
    RepairOrder,
    StreamHead,
    SummaryQuestion,
)
from exchange.carriers.http import LinkClient
from exchange.errors import Malformed
from models.errors import NotFound
from models.streams import Network, StreamName

Answer = TypeVar("Answer", bound=BaseModel)
Named = TypeVar("Named", StreamHead, Finding)


@dataclass(frozen=True)
class RemoteSide:
    """A `RepairableSide`. Every method raises `LinkError`, also for an answer that is unsigned or does not parse."""

    link: LinkClient
    network: ClassVar[Network] = Network.REQUEST
    live: ClassVar[bool] = True

    async def head(self, stream: StreamName) -> StreamHead:
        return self._about(stream, await self._ask(stream, SummaryQuestion(ask="head"), StreamHead))

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        question = SummaryQuestion(ask="digest", epoch=epoch, first=first, last=last)
        return await self._ask(stream, question, RangeDigest)

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        question = SummaryQuestion(ask="audit", epoch=epoch, first=first, last=last)
        answer = await self._ask(stream, question, Audit)
        if not first <= answer.through <= last:
            raise Malformed(f"an audit of {first} to {last} cannot end at {answer.through}")
        for finding in answer.findings:
            self._about(stream, finding)
        return answer

    async def orphans(self, stream: StreamName) -> list[Finding]:
        found = (await self._ask(stream, SummaryQuestion(ask="orphans"), Orphans)).findings
        return [self._about(stream, finding) for finding in found]

    async def repair(self, stream: StreamName, epoch: int, sequence: int) -> Repaired:
        """Order the request network to rebuild the rows of a batch."""
        order = RepairOrder(epoch=epoch, sequence=sequence)
        return _parsed(await self.link.order_repair(stream, order.model_dump_json().encode()), Repaired)

    async def restore(self, stream: StreamName, wire: bytes) -> Repaired:
        """Send the original bytes of a batch, to replace the copy there."""
        return _parsed(await self.link.restore(stream, wire), Repaired)

    async def stored(self, stream: StreamName, epoch: int, sequence: int) -> bytes | None:
        """The original bytes of a batch sealed or received there; None if they are gone."""
        try:
            return await self.link.received(stream, epoch, sequence)
        except NotFound:
            return None

    async def seal_anew(self, stream: StreamName) -> None:
        """Always fails: only the response network seals snapshots."""
        raise Malformed(f"the {stream} stream is not sealed in the request network")

    async def _ask(self, stream: StreamName, question: SummaryQuestion, wanted: type[Answer]) -> Answer:
        return _parsed(await self.link.ask(stream, question.model_dump_json().encode()), wanted)

    def _about(self, stream: StreamName, answer: Named) -> Named:
        if (answer.network, answer.stream) != (self.network, stream):
            raise Malformed(f"an answer about {answer.network}/{answer.stream} came for {self.network}/{stream}")
        return answer


def _parsed(content: bytes, wanted: type[Answer]) -> Answer:
    try:
        return wanted.model_validate_json(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise Malformed(f"not a {wanted.__name__}: {problem['loc']}: {problem['msg']}") from None
