"""Do both sides agree, to the last record? Compares chains over the link, and has each side check its own rows.

A digest over the manifests' hashes is compared range by range; only where it differs are halves compared, down to one
batch. Since a manifest covers its payload, each side can hold its own payloads and rows against it by itself: what
crosses is digests, counts, numbers and ids, and no contents.

On a live system nothing may seem wrong that only moves. Where the receiver stands is read before where the sender
stands, and only what both have is compared; what is newer is in flight. A side's rows and batches are seen in one
moment. Whatever still differs is looked at once more after `SETTLE_SECONDS`.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from exchange.errors import LinkError
from exchange.summaries import BATCHES_PER_DIGEST, Audit, Finding, Healed, Kind, Mendable, Side, StreamHead
from models.streams import Network, StreamName

SETTLE_SECONDS = 1.0
MOST_FINDINGS = 1000
"""Findings that are listed per stream; more are counted."""
MEND_ROUNDS = 50

Progress = Callable[[StreamName, Network, int, int], None]
"""Called with stream, network, batches looked at so far and in all."""
_Place = tuple[object, ...]


@dataclass
class StreamReport:
    """How both ends of one stream compare."""

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
        """Batches that both sides have, by number."""
        return min(self.sender.sequence, self.receiver.sequence)

    @property
    def in_flight(self) -> int:
        """Records that are not sealed, not received or not applied yet."""
        waiting = self.audits[self.receiver.network].in_flight if self.audits else 0
        return self.sender.pending + max(0, self.sender.record - self.receiver.record) + waiting

    @property
    def agrees(self) -> bool:
        return not self.findings and not self.unlisted

    def head(self, network: Network) -> StreamHead:
        """The end of the stream on this network's side."""
        return self.sender if network is self.stream.sender else self.receiver

    def count(self, kind: Kind) -> int:
        return sum(finding.kind is kind for finding in self.findings)


@dataclass(frozen=True)
class Verifier:
    """Compares two sides. Only reads. Raises `LinkError` when a side cannot be asked."""

    sides: Mapping[Network, Side]
    progress: Progress = lambda *_: None
    settle_seconds: float = SETTLE_SECONDS

    async def verify(self, streams: Sequence[StreamName]) -> list[StreamReport]:
        """One after the other, so that a few batches are in memory and no more."""
        return [await self._stream(stream) for stream in streams]

    async def _stream(self, stream: StreamName) -> StreamReport:
        receiver = await self.sides[stream.receiver].head(stream)  # first: the sender only moves ahead of it
        report = StreamReport(await self.sides[stream.sender].head(stream), receiver)
        found = self._heads(report)
        if report.sender.epoch == report.receiver.epoch:
            found += await self._chain(report, 1, report.compared)
        absent = {item.sequence for item in found if item.kind is Kind.MISSING}
        for network, side in self.sides.items():
            audit = await self._audit(report, side)
            report.audits[network] = audit
            found += audit.findings
            found += [item for item in await side.strays(stream) if item.sequence not in absent]
        if any(side.live for side in self.sides.values()) and found:
            await asyncio.sleep(self.settle_seconds)
            found = await self._again(report, found)
        if not any(item.table == "snapshots" for item in found):
            found += self._snapshot(report)
        report.unlisted += max(0, len(found) - MOST_FINDINGS)
        report.findings = found[:MOST_FINDINGS]
        return report

    def _heads(self, report: StreamReport) -> list[Finding]:
        """What the two ends alone tell: another epoch, or a receiver that is ahead, as after restoring a backup."""
        sender, receiver = report.sender, report.receiver
        if sender.epoch != receiver.epoch:
            detail = f"epoch {receiver.epoch} here, {sender.epoch} at the sender: the chains cannot be compared"
            return [_of_batch(receiver, Kind.DIFFERENT, receiver.sequence, detail)]
        still = not any(side.live for side in self.sides.values())
        if receiver.sequence > sender.sequence and not (still and receiver.read_at > sender.read_at):
            detail = f"the sender knows {sender.sequence} batches, this side {receiver.sequence}: a restored backup?"
            return [_of_batch(receiver, Kind.EXTRA, sender.sequence + 1, detail)]
        return []

    async def _chain(self, report: StreamReport, first: int, last: int) -> list[Finding]:
        """The batches whose manifests differ, and a head that is not its newest batch's."""
        found: list[Finding] = []
        for start in range(first, last + 1, BATCHES_PER_DIGEST):
            end = min(last, start + BATCHES_PER_DIGEST - 1)
            found += await self._differing(report, start, end)
            if len(found) > MOST_FINDINGS:
                report.unlisted += last - end  # not looked at: so much differs that it is another history
                break
        for head in (report.sender, report.receiver):
            if head.sequence and last and not any(item.sequence == head.sequence for item in found):
                own = await self.sides[head.network].digest(report.stream, head.epoch, head.sequence, head.sequence)
                if own.count == 1 and own.digest != hashlib.sha256(bytes.fromhex(head.hash)).hexdigest():
                    detail = "the newest batch is not the one that the stream's head names"
                    found.append(_of_batch(head, Kind.DIFFERENT, head.sequence, detail))
        return found

    async def _differing(self, report: StreamReport, first: int, last: int) -> list[Finding]:
        stream, epoch = report.stream, report.sender.epoch
        sent = await self.sides[stream.sender].digest(stream, epoch, first, last)
        come = await self.sides[stream.receiver].digest(stream, epoch, first, last)
        if sent == come and sent.count == last - first + 1:
            return []
        if first < last:
            middle = (first + last) // 2
            return [
                *await self._differing(report, first, middle),
                *await self._differing(report, middle + 1, last),
            ]
        found = []
        for head, here in ((report.sender, sent), (report.receiver, come)):
            if not here.count:
                found.append(_of_batch(head, Kind.MISSING, first, "the batch is not stored"))
        if not found:
            found = [_of_batch(report.receiver, Kind.DIFFERENT, first, "its manifest is not the one at its sender")]
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
        first = 1
        while first <= head.sequence:
            part = await side.audit(head.stream, head.epoch, first, head.sequence)
            self.progress(head.stream, side.network, part.through, head.sequence)
            yield part
            first = part.through + 1

    async def _again(self, report: StreamReport, found: Sequence[Finding]) -> list[Finding]:
        """What still differs at a second look."""
        stream = report.stream
        seen: set[_Place] = {_place(item) for item in self._heads(report)}
        for network, side in self.sides.items():
            mine = [item for item in found if item.network is network]
            head = report.head(network)
            for sequence in sorted({item.sequence for item in mine if 1 <= item.sequence <= head.sequence}):
                part = await side.audit(stream, head.epoch, sequence, sequence)
                seen |= {_place(item) for item in part.findings}
            if any(item.record is None and item.request_id for item in mine):
                seen |= {_place(item) for item in await side.strays(stream)}
        if report.sender.epoch == report.receiver.epoch:
            for sequence in {item.sequence for item in found if item.table.endswith("_batches")}:
                if 0 < sequence <= report.compared:
                    seen |= {_place(item) for item in await self._chain(report, sequence, sequence)}
        return [item for item in found if _place(item) in seen]

    def _snapshot(self, report: StreamReport) -> list[Finding]:
        """What is shown against what was sealed: needs no payload, and so holds past retention too."""
        sender, receiver = report.sender, report.receiver
        same = receiver.snapshot_sequence == sender.snapshot_sequence and receiver.epoch == sender.epoch
        if not same or receiver.quarantined or sender.snapshot_sha256 in (None, receiver.snapshot_sha256):
            return []
        found = _of_batch(receiver, Kind.DIFFERENT, sender.sequence, "the records shown are not those that were sealed")
        return [found.model_copy(update={"table": "snapshots"})]


@dataclass
class Mended:
    """What a repair did, and what it could not do, with the reason."""

    healed: Healed = field(default_factory=Healed)
    left: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Mender:
    """Repairs what a `Verifier` finds, then has it look again, until nothing more can be healed."""

    verifier: Verifier
    ends: Mapping[Network, Mendable]
    delete_extra: bool = False

    async def mend(self, reports: list[StreamReport]) -> tuple[list[StreamReport], Mended]:
        """The reports after the repair, and what it did."""
        mended = Mended()
        for _ in range(MEND_ROUNDS):
            differing = [report for report in reports if not report.agrees]
            before = _places(differing)
            mended.left.clear()
            for report in differing:
                await self._restore(report, mended)
                await self._repair(report, mended)
            if not differing or not mended.healed.did_something:
                break
            fresh = await self.verifier.verify([report.stream for report in differing])
            by_stream = {report.stream: report for report in fresh}
            reports = [by_stream.get(report.stream, report) for report in reports]
            if before == _places(fresh):
                break
        return reports, mended

    async def _restore(self, report: StreamReport, mended: Mended) -> None:
        """Resend what the receiver's batches lack, newest first: each is recognised by the one after it."""
        stream, epoch = report.stream, report.sender.epoch
        damaged = {item.sequence for item in report.findings if item.table == "received_batches"}
        for sequence in sorted(damaged, reverse=True):
            wire = await self.ends[stream.sender].sealed(stream, epoch, sequence)
            if wire is None:
                mended.left[f"{stream} {epoch}.{sequence}"] = "the sender does not have its payload any more either"
                continue
            try:
                mended.healed.add(await self.ends[stream.receiver].restore(stream, wire))
            except LinkError as error:
                mended.left[f"{stream} {epoch}.{sequence}"] = str(error)
        for item in report.findings:
            if item.table == "sealed_batches":
                mended.left[f"{stream} {epoch}.{item.sequence}"] = (
                    "the sender's own batch is damaged; what was delivered is not: restore a backup of the sender"
                )

    async def _repair(self, report: StreamReport, mended: Mended) -> None:
        """Have rows rebuilt where they are, from the batch that is stored there."""
        stream = report.stream
        rows = [item for item in report.findings if not item.table.endswith("_batches")]
        for network, sequence in sorted({(item.network, item.sequence) for item in rows}):
            head = report.head(network)
            if 1 <= sequence <= head.sequence:
                await self._one(stream, network, head.epoch, sequence, mended)
        strays = [item for item in rows if item.record is None and item.kind is Kind.EXTRA]
        if self.delete_extra:
            for network in {item.network for item in strays}:
                await self._one(stream, network, report.head(network).epoch, 0, mended)
        else:
            for item in strays:
                mended.left[f"{item.table} {item.request_id}"] = "no batch explains it; --delete-extra deletes it"

    async def _one(self, stream: StreamName, network: Network, epoch: int, sequence: int, mended: Mended) -> None:
        try:
            mended.healed.add(await self.ends[network].repair(stream, epoch, sequence, self.delete_extra))
        except LinkError as error:
            mended.left[f"{stream} {epoch}.{sequence} in the {network} network"] = str(error)


def _of_batch(head: StreamHead, kind: Kind, sequence: int, detail: str) -> Finding:
    return Finding(
        network=head.network,
        stream=head.stream,
        table="sealed_batches" if head.stream.sender is head.network else "received_batches",
        kind=kind,
        sequence=sequence,
        detail=detail,
    )


def _place(finding: Finding) -> _Place:
    return (finding.network, finding.table, finding.kind, finding.sequence, finding.record, finding.request_id)


def _places(reports: Sequence[StreamReport]) -> set[_Place]:
    return {(report.stream, *_place(finding)) for report in reports for finding in report.findings}
