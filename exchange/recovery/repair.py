"""Repairing the findings of a `Verifier`: batches from the other side's copy, rows from batches. Extra rows are set
aside.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from exchange.audit.summaries import Finding, Kind, RepairableSide, Repaired
from exchange.audit.verifier import StreamReport, Verifier, places
from exchange.errors import LinkError
from models.streams import Network, StreamName

ROUNDS = 50
"""Most rounds of repairing and verifying. A report lists a bounded number of findings, so one may not be enough."""
MOST_ORPHAN_REPAIRS = 1000
"""Each sets aside thousands of rows. The other side says whether it did, so it does not decide when this ends."""
Sides = Mapping[Network, RepairableSide]


class RepairOutcome(Repaired):
    """The result of repairing both sides. ``left``: what could not be repaired, with the reason."""

    left: dict[str, str] = Field(default_factory=dict)


async def repair_differences(
    verifier: Verifier, sides: Sides, reports: Sequence[StreamReport]
) -> tuple[list[StreamReport], RepairOutcome]:
    """Repair the findings of these reports and verify again, until nothing more can be repaired.

    Returns the reports after the repair, and its result. Raises `LinkError` if a side does not answer.
    """
    current, outcome = {report.stream: report for report in reports}, RepairOutcome()
    for _ in range(ROUNDS):
        differing = [report for report in current.values() if not report.agrees]
        outcome.left.clear()
        for report in differing:
            await _repair_batches(sides, report, outcome)
            await _repair_rows(sides, report, outcome)
        if not differing or not outcome.did_something:
            break
        fresh = await verifier.verify([report.stream for report in differing])
        current.update({report.stream: report for report in fresh})
        if places(differing) == places(fresh):
            break
    return list(current.values()), outcome


async def _repair_batches(sides: Sides, report: StreamReport, outcome: RepairOutcome) -> None:
    """Newest first, because the next batch holds the hash by which a copy is checked."""
    batches = [item for item in report.findings if not item.is_row]
    for item in sorted(batches, key=lambda each: (each.epoch, each.sequence), reverse=True):
        if item.table == "epochs" or item.kind is Kind.EXTRA:
            reason: str | None = (
                f"the two sides' histories differ: airlock stream new-epoch {report.stream} begins a common one"
            )
        else:
            reason = await _copy_batch(sides, item, outcome)
        if reason is not None:
            outcome.left[_batch_in(item.stream, item.epoch, item.sequence, item.network)] = reason


async def _copy_batch(sides: Sides, item: Finding, outcome: RepairOutcome) -> str | None:
    """Restore a batch from the other side's copy. If both have one, the valid copy replaces the other.

    Returns the reason if this is not possible.
    """
    targets = [item.network]
    if item.kind is Kind.DIFFERENT and item.network is item.stream.receiver:
        targets.append(item.stream.sender)
    reasons: list[str] = []
    for target in targets:
        wire = await sides[target.other].stored(item.stream, item.epoch, item.sequence)
        if wire is None:
            reasons.append(f"the {target.other} network does not have its payload any more either")
            continue
        try:
            outcome.add(await sides[target].restore(item.stream, wire))
            return None
        except LinkError as error:
            reasons.append(str(error))
    return reasons[0]


async def _repair_rows(sides: Sides, report: StreamReport, outcome: RepairOutcome) -> None:
    stream = report.stream
    rows = [item for item in report.findings if item.is_row]
    for network, epoch, sequence in sorted({(item.network, item.epoch, item.sequence) for item in rows}):
        if not report.has(network, epoch, sequence):
            continue
        if not await _repair_side(sides, stream, network, epoch, sequence, outcome) and stream.is_snapshot:
            await sides[stream.sender].seal_anew(stream)
            outcome.left[f"the snapshot of {stream}"] = (
                f"its payload is gone on both sides; the next export seals the present one anew (airlock schedules"
                f" trigger export-{stream}): verify again then"
            )
    for network in {item.network for item in rows if item.kind is Kind.EXTRA}:
        for _ in range(MOST_ORPHAN_REPAIRS):
            if not await _repair_side(sides, stream, network, 1, 0, outcome):
                break
        else:
            outcome.left[f"rows of {stream} in the {network} network"] = "there are still more: repair again"


async def _repair_side(
    sides: Sides, stream: StreamName, network: Network, epoch: int, sequence: int, outcome: RepairOutcome
) -> bool:
    """Repair the rows of a batch. Returns whether anything changed."""
    try:
        done = await sides[network].repair(stream, epoch, sequence)
    except LinkError as error:
        outcome.left[_batch_in(stream, epoch, sequence, network)] = str(error)
        return False
    outcome.add(done)
    return done.did_something


def _batch_in(stream: StreamName, epoch: int, sequence: int, network: Network) -> str:
    return f"{stream} {epoch}.{sequence} in the {network} network"
