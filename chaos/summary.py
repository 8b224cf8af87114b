"""The summary of a run: faults, their cost, discrepancies."""

import os
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from chaos.faults import Done
from chaos.judging import Discrepancy, Fate
from chaos.ledger import Ledger
from chaos.measuring import Recovery, answered, calm_latencies, longest_stall, quantile, recoveries
from models.wording import counted

DONE, DIFFERS, INTERRUPTED = "done", "differs", "interrupted"


@dataclass(frozen=True)
class Summary:
    """The summary of a run. Times in seconds."""

    verdict: str
    seed: int
    minutes: float
    machine: str
    date: str
    faults: dict[str, int]
    faults_without_effect: list[str]
    submitted: int
    refused: int
    accepted: int
    completed: int
    failed: int
    failed_because_of_faults: int
    read_again: int
    settings_changes: int
    restarts: dict[str, int]
    fates: dict[str, int]
    longest_stall: float
    recoveries: list[Recovery]
    latency_p50: float | None
    latency_p99: float | None
    calm_requests: int
    verify: str
    discrepancies: list[Discrepancy]

    @property
    def is_good(self) -> bool:
        """Whether the run reached its end without a discrepancy."""
        return self.verdict == DONE

    def as_json(self) -> dict[str, Any]:
        """Output of ``--json``."""
        return asdict(self) | {"discrepancies": [each.as_json() for each in self.discrepancies]}


def summarise(
    seed: int,
    minutes: float,
    ledger: Ledger,
    done: Sequence[Done],
    discrepancies: Sequence[Discrepancy],
    *,
    excused: int = 0,
    restarts: Counter[str] | None = None,
    verify: str = "not run",
    interrupted: bool = False,
) -> Summary:
    """Compute the summary."""
    requests = answered(ledger)
    calm = calm_latencies(done, requests)
    accepted = list(ledger.accepted())
    read = [ledger.results[each.request_id].body for each in accepted if each.request_id in ledger.results]
    statuses = Counter(str(body.get("status")) for body in read)
    fates = Counter(each.fate.value for each in discrepancies)
    return Summary(
        verdict=DIFFERS if discrepancies else INTERRUPTED if interrupted else DONE,
        seed=seed,
        minutes=minutes,
        machine=machine(),
        date=datetime.now(UTC).date().isoformat(),
        faults=dict(sorted(Counter(each.fault.kind.value for each in done if not each.problem).items())),
        faults_without_effect=[
            f"{each.fault.kind.value} {each.fault.target}: {each.problem}" for each in done if each.problem
        ],
        submitted=sum(len(sent.requests) for sent in ledger.sent.values()),
        refused=sum(len(sent.requests) for sent in ledger.sent.values() if sent.refused and sent.refusals),
        accepted=len(accepted),
        completed=statuses["completed"],
        failed=statuses["failed"],
        failed_because_of_faults=excused,
        read_again=sum(map(len, ledger.again.values())),
        settings_changes=sum(setting.accepted_changes for setting in ledger.settings.values()),
        restarts=dict(sorted((restarts or Counter()).items())),
        fates={fate.value: fates[fate.value] for fate in Fate},
        longest_stall=longest_stall(ledger),
        recoveries=recoveries(done, requests),
        latency_p50=quantile(calm, 0.5),
        latency_p99=quantile(calm, 0.99),
        calm_requests=len(calm),
        verify=verify,
        discrepancies=list(discrepancies),
    )


def machine() -> str:
    """The machine in words."""
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def as_rows(summary: Summary) -> list[tuple[str, str]]:
    """The summary as a table of two columns."""
    rows = [
        ("seed, minutes", f"{summary.seed}, {summary.minutes:g}"),
        ("machine", f"{summary.machine}, {summary.date}"),
        ("faults", f"{sum(summary.faults.values())}: {_counts(summary.faults)}"),
        ("requests submitted", f"{summary.submitted} ({summary.refused} refused, as they must be)"),
        ("accepted", f"{summary.accepted}"),
        ("completed + failed", f"{summary.completed} + {summary.failed}"),
        ("failed because of faults", f"{summary.failed_because_of_faults}, each says that its source was away"),
        ("results read again", f"{summary.read_again}"),
        ("settings changes", f"{summary.settings_changes}"),
        ("started again", _counts(summary.restarts)),
        *((fate, f"{times}") for fate, times in summary.fates.items()),
        ("longest stall", f"{summary.longest_stall:.1f} s"),
    ]
    for each in summary.recoveries:
        never = f", {each.never} without a result after it" if each.never else ""
        rows.append(
            (f"recovery, {each.kind}", f"median {_seconds(each.median)}, longest {_seconds(each.longest)}{never}")
        )
    latency = f"p50 {_seconds(summary.latency_p50)}, p99 {_seconds(summary.latency_p99)}"
    rows.append(("latency outside faults", f"{latency} ({counted(summary.calm_requests, 'request')})"))
    rows.append(("airlock verify", summary.verify))
    rows.append(("verdict", summary.verdict))
    return rows


def _counts(times_of: dict[str, int]) -> str:
    return ", ".join(f"{name} {times}" for name, times in times_of.items()) or "none"


def _seconds(duration: float | None) -> str:
    return "unknown" if duration is None else f"{duration:.2f} s"
