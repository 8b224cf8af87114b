"""Verifying: compares the chains of both sides, and lets each side compare its own rows with its batches.

Digests over the manifests' hashes are compared range by range. Where one differs, its halves are compared, down to one
batch. A manifest covers its payload, so each side can check its payloads and rows by itself. Only digests, counts,
numbers and ids cross, no contents.

Changes on a live system must not look like differences. The receiver's position is read before the sender's, and only
batches that both have are compared; newer ones are in flight. Each side reads its rows and batches in one
transaction. Remaining differences are checked once more after `SETTLE_SECONDS`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from exchange.audit.epoch_spans import disagreements, in_common
from exchange.audit.summaries import BATCHES_PER_DIGEST, Audit, Finding, Kind, Side, StreamHead, Table
from exchange.errors import Malformed
from models.streams import Network, StreamName
from models.wording import counted

SETTLE_SECONDS = 1.0
MOST_FINDINGS = 1000
"""Most findings that are listed per stream; more are only counted."""
MOST_AHEAD = 1_000_000
"""Batches and epochs that one side may know and the other not, as after the loss of a database."""
OTHER_MANIFEST = "its manifest is not the one at its sender"

Progress = Callable[[StreamName, Network, int, int], None]
"""Called with stream, network, batches checked so far and in total."""
_Place = tuple[object, ...]


@dataclass
class StreamReport:
    """The comparison of both ends of one stream."""

    sender: StreamHead
    receiver: StreamHead
    audits: dict[Network, Audit] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    """Findings beyond `MOST_FINDINGS`."""

    @property
    def stream(self) -> StreamName:
        return self.sender.stream

    @property
    def compared(self) -> int:
        """How many batches both sides must have."""
        return sum(last for _, last in self.in_common)

    @property
    def in_common(self) -> list[tuple[int, int]]:
        """Each epoch that is not void, with its last batch that both sides must have. Empty if the receiver is in an
        epoch that the sender does not know."""
        if self.receiver.epoch > self.sender.epoch:
            return []
        return in_common(self.sender, self.receiver)

    @property
    def in_flight(self) -> int:
        """Records that are not sealed, received or applied yet."""
        waiting = self.audits[self.receiver.network].in_flight if self.audits else 0
        arrived = self.receiver.record if self.receiver.epoch == self.sender.epoch else 0
        return self.sender.pending + max(0, self.sender.record - arrived) + waiting

    @property
    def agrees(self) -> bool:
        return not self.findings and not self.unlisted

    def head(self, network: Network) -> StreamHead:
        """The end of the stream in this network."""
        return self.sender if network is self.stream.sender else self.receiver

    def has(self, network: Network, epoch: int, sequence: int) -> bool:
        """Whether this network has or had this batch."""
        return any(span.epoch == epoch and 1 <= sequence <= span.through for span in self.head(network).epochs)

    def count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)

    def record(self, found: Sequence[Finding]) -> None:
        """Set the findings; beyond `MOST_FINDINGS` they are only counted."""
        self.unlisted += max(0, len(found) - MOST_FINDINGS)
        self.findings = list(found[:MOST_FINDINGS])


@dataclass(frozen=True)
class Verifier:
    """Compares two sides. Only reads. Raises `LinkError` if a side does not answer."""

    sides: Mapping[Network, Side]
    progress: Progress = lambda *_: None
    settle_seconds: float = SETTLE_SECONDS

    async def verify(self, streams: Sequence[StreamName]) -> list[StreamReport]:
        """Compare streams one after the other, so that only a few batches are in memory."""
        return [await self._stream(stream) for stream in streams]

    async def _ends(self, stream: StreamName) -> StreamReport:
        receiver = await self.sides[stream.receiver].head(stream)  # first, because the sender is never behind
        sender = await self.sides[stream.sender].head(stream)
        _check_plausible(sender, receiver)
        return StreamReport(sender, receiver)

    async def _stream(self, stream: StreamName) -> StreamReport:
        report = await self._ends(stream)
        ends = self._heads(report)
        found: list[Finding] = []
        for epoch, last in report.in_common:
            found += await self._chain(report, epoch, 1, last)
        absent = {(item.epoch, item.sequence) for item in found if item.kind is Kind.MISSING}
        looked = await asyncio.gather(*(self._side(report, side) for side in self.sides.values()))
        for audit, orphans in looked:
            found += audit.findings
            found += [item for item in orphans if (item.epoch, item.sequence) not in absent]
        found = _without_duplicates(found)
        if any(side.live for side in self.sides.values()) and (ends or found):
            await asyncio.sleep(self.settle_seconds)
            ends = self._heads(await self._ends(stream)) if ends else []
            found = await self._confirmed(report, found)
        found = ends + found
        if not any(item.table == "snapshots" for item in found):
            found += self._snapshot(report)
        report.record(found)
        return report

    async def _side(self, report: StreamReport, side: Side) -> tuple[Audit, list[Finding]]:
        """The findings of one side about its own rows."""
        audit = report.audits[side.network] = await self._audit(report, side)
        return audit, await side.orphans(report.stream)

    def _heads(self, report: StreamReport) -> list[Finding]:
        """Differences between the two ends: epochs, or a receiver that is ahead, as after restoring a backup."""
        sender, receiver = report.sender, report.receiver
        found = [
            _finding(receiver, Kind.DIFFERENT, epoch, 0, f"epoch {epoch}: {why}", "epochs")
            for epoch, why in disagreements(sender, receiver).items()
        ]
        still = not any(side.live for side in self.sides.values())
        ahead = receiver.epoch == sender.epoch and receiver.sequence > sender.sequence
        if ahead and not (still and receiver.read_at > sender.read_at):
            known = counted(sender.sequence, "batch")
            detail = f"the sender knows {known}, this side {receiver.sequence}: a restored backup?"
            found.append(_finding(receiver, Kind.EXTRA, receiver.epoch, sender.sequence + 1, detail))
        return found

    async def _chain(self, report: StreamReport, epoch: int, first: int, last: int) -> list[Finding]:
        """The batches of an epoch whose manifests differ, and a head whose hash is not that of its newest batch."""
        found: list[Finding] = []
        for start in range(first, last + 1, BATCHES_PER_DIGEST):
            end = min(last, start + BATCHES_PER_DIGEST - 1)
            found += await self._differing(report, epoch, start, end)
            if len(found) > MOST_FINDINGS:
                report.unlisted += last - end  # not compared: so many differences mean another history
                break
        for head in (report.sender, report.receiver):
            if head.epoch != epoch or not head.sequence or not last:
                continue
            if not any(item.sequence == head.sequence for item in found):
                own = await self.sides[head.network].digest(report.stream, epoch, head.sequence, head.sequence)
                if own.count == 1 and own.digest != hashlib.sha256(bytes.fromhex(head.hash)).hexdigest():
                    detail = "the newest batch is not the one that the stream's head names"
                    found.append(_finding(head, Kind.DIFFERENT, epoch, head.sequence, detail))
        return found

    async def _differing(self, report: StreamReport, epoch: int, first: int, last: int) -> list[Finding]:
        stream = report.stream
        sent = await self.sides[stream.sender].digest(stream, epoch, first, last)
        come = await self.sides[stream.receiver].digest(stream, epoch, first, last)
        if sent == come and sent.count == last - first + 1:
            return []
        if first < last:
            middle = (first + last) // 2
            return [
                *await self._differing(report, epoch, first, middle),
                *await self._differing(report, epoch, middle + 1, last),
            ]
        found = []
        for head, here in ((report.sender, sent), (report.receiver, come)):
            if not here.count:
                found.append(_finding(head, Kind.MISSING, epoch, first, "the batch is not stored"))
        if not found:
            found = [_finding(report.receiver, Kind.DIFFERENT, epoch, first, OTHER_MANIFEST)]
        return found

    async def _audit(self, report: StreamReport, side: Side) -> Audit:
        head = report.head(side.network)
        outcome = Audit()
        async for part in self._parts(side, head):
            room = max(0, MOST_FINDINGS - len(outcome.findings))
            report.unlisted += max(0, len(part.findings) - room)
            outcome.add(part.model_copy(update={"findings": part.findings[:room]}))
        return outcome

    async def _parts(self, side: Side, head: StreamHead) -> AsyncIterator[Audit]:
        """Audits of all batches of all epochs, void ones too, since their rows have stayed."""
        for span in head.epochs:
            first = 1
            while first <= span.through:
                part = await side.audit(head.stream, span.epoch, first, span.through)
                self.progress(head.stream, side.network, part.through, span.through)
                yield part
                first = part.through + 1

    async def _confirmed(self, report: StreamReport, found: Sequence[Finding]) -> list[Finding]:
        """The findings that a second check finds again."""
        stream = report.stream
        seen: set[_Place] = set()
        for network, side in self.sides.items():
            mine = [item for item in found if item.network is network]
            for epoch, sequence in sorted({(item.epoch, item.sequence) for item in mine}):
                if not report.has(network, epoch, sequence):
                    continue
                part = await side.audit(stream, epoch, sequence, sequence)
                seen |= {_place(item) for item in part.findings}
            if any(item.record is None and item.request_id for item in mine):
                seen |= {_place(item) for item in await side.orphans(stream)}
        last_of = dict(report.in_common)
        for epoch, sequence in {(item.epoch, item.sequence) for item in found if item.table.endswith("_batches")}:
            if 0 < sequence <= last_of.get(epoch, 0):
                seen |= {_place(item) for item in await self._chain(report, epoch, sequence, sequence)}
        return [item for item in found if _place(item) in seen]

    def _snapshot(self, report: StreamReport) -> list[Finding]:
        """Compare the snapshot in force with the sealed one by its SHA-256, which needs no payload."""
        sender, receiver = report.sender, report.receiver
        same = receiver.snapshot_sequence == sender.snapshot_sequence and receiver.epoch == sender.epoch
        if not same or receiver.quarantined or sender.snapshot_sha256 in (None, receiver.snapshot_sha256):
            return []
        detail = "the records shown are not those that were sealed"
        return [_finding(receiver, Kind.DIFFERENT, sender.epoch, sender.sequence, detail, "snapshots")]


def _check_plausible(first: StreamHead, second: StreamHead) -> None:
    """Raise `Malformed` if one side claims far more than the other: what is claimed decides how much is asked."""
    sizes = {head.network: _size(head) for head in (first, second)}
    (less, least), (more, most) = sorted(sizes.items(), key=lambda item: item[1])
    if most - least > MOST_AHEAD:
        raise Malformed(
            f"{first.stream}: the {more} network claims {most} batches and epochs, the {less} network knows {least}:"
            " restore the one that is wrong, or begin a new epoch"
        )


def _size(head: StreamHead) -> int:
    return head.epoch + sum(max(span.through, span.previous_sequence) for span in head.epochs)


def _without_duplicates(found: Sequence[Finding]) -> list[Finding]:
    """Drop "the manifests differ" for a batch that a side has found to be damaged by itself."""
    known = {
        (item.epoch, item.sequence)
        for item in found
        if item.table.endswith("_batches") and item.kind is not Kind.MISSING and item.detail != OTHER_MANIFEST
    }
    return [item for item in found if item.detail != OTHER_MANIFEST or (item.epoch, item.sequence) not in known]


def _finding(
    head: StreamHead, kind: Kind, epoch: int, sequence: int, detail: str, table: Table | None = None
) -> Finding:
    """A finding about a batch, unless ``table`` is given."""
    return Finding(
        network=head.network,
        stream=head.stream,
        table=table or ("sealed_batches" if head.stream.sender is head.network else "received_batches"),
        kind=kind,
        epoch=epoch,
        sequence=sequence,
        detail=detail,
    )


def _place(finding: Finding) -> _Place:
    place = (finding.network, finding.table, finding.kind, finding.epoch, finding.sequence)
    return (*place, finding.record, finding.request_id)


def places(reports: Sequence[StreamReport]) -> set[_Place]:
    """The places of all findings, to compare reports."""
    return {(report.stream, *_place(finding)) for report in reports for finding in report.findings}
