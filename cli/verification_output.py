"""The output of `airlock verify`: progress, tables for people, JSON with stable keys for programs."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cli.output import print_json, print_table, say, say_in_place

if TYPE_CHECKING:
    from exchange.audit.verifier import StreamReport
    from exchange.recovery.orphans import OrphanedRow
    from exchange.recovery.repair import RepairOutcome
    from models.streams import Network, StreamName

COLUMNS = (
    "stream",
    "batches",
    "records",
    "in flight",
    "quarantined",
    "past retention",
    "missing",
    "different",
    "extra",
    "verdict",
)
SAY_EVERY = 5.0
"""Seconds between lines of progress without a terminal."""


@contextmanager
def show_progress(quiet: bool) -> "Iterator[Callable[[StreamName, Network, int, int], None]]":
    """Progress on standard error: a line that is overwritten on a terminal, otherwise one every `SAY_EVERY` seconds."""
    terminal = sys.stderr.isatty()
    said_at = time.monotonic()

    def show(stream: "StreamName", network: "Network", done: int, of: int) -> None:
        nonlocal said_at
        if quiet or time.monotonic() - said_at < (0.1 if terminal else SAY_EVERY):
            return
        said_at = time.monotonic()
        text = f"{stream}, {network} network: batch {done} of {of}"
        say_in_place(text) if terminal else say(text, err=True)

    try:
        yield show
    finally:
        if terminal and not quiet:
            say_in_place("")


def show_reports(reports: "list[StreamReport]", outcome: "RepairOutcome | None") -> None:
    """Print a line for each stream, then one for each difference."""
    from exchange.audit.summaries import Kind

    print_table(
        "Streams",
        COLUMNS,
        [
            (
                report.stream.value,
                _both(report.sender.sequence, report.receiver.sequence),
                _both(report.sender.record, report.receiver.record),
                report.in_flight,
                report.receiver.quarantined,
                max(audit.past_retention for audit in report.audits.values()),
                report.count(Kind.MISSING),
                report.count(Kind.DIFFERENT),
                report.count(Kind.EXTRA),
                _verdict(report),
            )
            for report in reports
        ],
    )
    differences = [finding for report in reports for finding in report.findings]
    print_table(
        "Differences",
        ("network", "table", "what", "batch", "request id", "why"),
        [
            (
                item.network.value,
                item.table,
                item.kind.value,
                f"{item.epoch}.{item.sequence}" if item.sequence else None,
                str(item.request_id or "") or (f"record {item.record}" if item.record else None),
                item.detail,
            )
            for item in differences
        ],
    )
    if more := sum(report.unlisted for report in reports):
        say(f"and {more} more")
    if outcome is not None:
        again = "; a batch of requests will be executed again" if outcome.taken_up_again else ""
        say(f"Repair: {outcome.rebuilt} rebuilt or resent, {outcome.set_aside} set aside{again}")
        if outcome.set_aside:
            say("Rows set aside are kept complete: airlock verify --set-aside lists those of the configured network")
        for place, reason in outcome.left.items():
            say(f"Left: {place}: {reason}")


def show_set_aside(found: "dict[str, list[OrphanedRow]]", as_json: bool) -> None:
    """Print rows that were set aside, by network. JSON contains the complete rows."""
    if as_json:
        listed = [
            {
                "row": f"{network}:{item.number}",
                "table": item.table,
                "request_id": item.request_id,
                "reason": item.reason,
                "set_aside_at": item.set_aside_at,
                "content": item.row,
            }
            for network, items in found.items()
            for item in items
        ]
        return print_json(listed)
    print_table(
        "Rows set aside (put one back with: airlock verify --put-back ROW)",
        ("row", "table", "request", "at", "reason"),
        [
            (f"{network}:{item.number}", item.table, item.request_id, item.set_aside_at, item.reason)
            for network, items in found.items()
            for item in items
        ],
    )
    return None


def _both(sent: int, received: int) -> object:
    """One number if both sides have the same."""
    return sent if sent == received else f"{received} of {sent}"


def _verdict(report: "StreamReport") -> str:
    stopped = report.sender.stopped or report.receiver.stopped
    return ("agrees" if report.agrees else "DIFFERS") + (", stopped" if stopped else "")


def to_json(reports: "list[StreamReport]", outcome: "RepairOutcome | None") -> dict[str, Any]:
    """The reports as JSON. Keys are stable; new ones may be added."""
    return {
        "agrees": all(report.agrees for report in reports),
        "streams": [
            {
                "stream": report.stream.value,
                "agrees": report.agrees,
                "compared_batches": report.compared,
                "in_flight_records": report.in_flight,
                "quarantined_records": report.receiver.quarantined,
                "sender": report.sender.model_dump(mode="json"),
                "receiver": report.receiver.model_dump(mode="json"),
                "audits": {
                    network.value: audit.model_dump(mode="json", exclude={"findings", "through"})
                    for network, audit in report.audits.items()
                },
                "differences": [finding.model_dump(mode="json") for finding in report.findings],
                "unlisted_differences": report.unlisted,
            }
            for report in reports
        ],
        "repair": None
        if outcome is None
        else {**outcome.model_dump(mode="json"), "left": [f"{k}: {v}" for k, v in outcome.left.items()]},
    }
