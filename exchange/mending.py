"""Repairing what a `Verifier` finds: batches from the other side's copy, rows from batches, extra rows set aside."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exchange.errors import LinkError
from exchange.summaries import Finding, Healed, Kind, Mendable
from exchange.verification import StreamReport, Verifier, places
from models.streams import Network, StreamName

MEND_ROUNDS = 50
OTHER = {Network.REQUEST: Network.RESPONSE, Network.RESPONSE: Network.REQUEST}


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

    async def mend(self, reports: list[StreamReport]) -> tuple[list[StreamReport], Mended]:
        """The reports after the repair, and what it did."""
        mended = Mended()
        for _ in range(MEND_ROUNDS):
            differing = [report for report in reports if not report.agrees]
            before = places(differing)
            mended.left.clear()
            for report in differing:
                await self._restore(report, mended)
                await self._repair(report, mended)
            if not differing or not mended.healed.did_something:
                break
            fresh = await self.verifier.verify([report.stream for report in differing])
            by_stream = {report.stream: report for report in fresh}
            reports = [by_stream.get(report.stream, report) for report in reports]
            if before == places(fresh):
                break
        return reports, mended

    async def _restore(self, report: StreamReport, mended: Mended) -> None:
        """Bring back batches, newest first: each is recognised by the one after it."""
        batches = [item for item in report.findings if item.table.endswith("_batches") or item.table == "epochs"]
        for item in sorted(batches, key=lambda each: (each.epoch, each.sequence), reverse=True):
            if item.table == "epochs" or item.kind is Kind.EXTRA:
                mended.left[_name(item)] = (
                    f"the two sides' histories differ: airlock stream new-epoch {report.stream} begins a common one"
                )
            elif (trouble := await self._bring_back(item, mended)) is not None:
                mended.left[_name(item)] = trouble

    async def _bring_back(self, item: Finding, mended: Mended) -> str | None:
        """From the other side's copy or, where the two differ and that is the one which is not genuine, the other way
        round; gives why not."""
        trouble = None
        takers = [item.network]
        if item.kind is Kind.DIFFERENT and item.network is item.stream.receiver:
            takers.append(OTHER[item.network])
        for taker in takers:
            wire = await self.ends[OTHER[taker]].stored(item.stream, item.epoch, item.sequence)
            if wire is None:
                trouble = trouble or f"the {OTHER[taker]} network does not have its payload any more either"
                continue
            try:
                mended.healed.add(await self.ends[taker].restore(item.stream, wire))
                return None
            except LinkError as error:
                trouble = trouble or str(error)
        return trouble

    async def _repair(self, report: StreamReport, mended: Mended) -> None:
        """Have rows rebuilt or set aside where they are, by the batch that is stored there."""
        stream = report.stream
        rows = [item for item in report.findings if not item.table.endswith("_batches") and item.table != "epochs"]
        for network, epoch, sequence in sorted({(item.network, item.epoch, item.sequence) for item in rows}):
            if report.has(network, epoch, sequence):
                done = await self._one(stream, network, epoch, sequence, mended)
                if stream.is_snapshot and not done:
                    await self.ends[stream.sender].seal_anew(stream)
                    mended.left[f"the snapshot of {stream}"] = (
                        f"no payload of it is left; the next export seals the present one anew (airlock schedules"
                        f" trigger export-{stream}): verify again then"
                    )
        for network in {item.network for item in rows if item.kind is Kind.EXTRA}:
            while await self._one(stream, network, 1, 0, mended):
                pass

    async def _one(self, stream: StreamName, network: Network, epoch: int, sequence: int, mended: Mended) -> bool:
        """Whether anything was done."""
        try:
            healed = await self.ends[network].repair(stream, epoch, sequence)
        except LinkError as error:
            mended.left[f"{stream} {epoch}.{sequence} in the {network} network"] = str(error)
            return False
        mended.healed.add(healed)
        return healed.did_something


def _name(item: Finding) -> str:
    return f"{item.stream} {item.epoch}.{item.sequence} in the {item.network} network"
