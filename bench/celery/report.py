"""The report of a run: the summary of `airlock chaos`, and rows that only the Celery build has."""

from dataclasses import asdict
from typing import Any

from bench.celery.run import Report
from chaos import summary as chaos_summary


def as_rows(report: Report) -> list[tuple[str, str]]:
    """The report as a table of two columns."""
    profile = report.run.profile
    common = [row for row in chaos_summary.as_rows(report.summary) if row[0] not in ("airlock verify", "verdict")]
    fates = report.summary.fates
    unanswered = fates["unanswered"] + fates["lost"]
    return [
        ("profile", f"{profile.name}: {profile.description}"),
        ("faults of Redis", "yes" if report.run.faults == "all" else "left out"),
        *common,
        ("longest wait", f"{'more than ' if unanswered else ''}{report.longest_wait:.1f} s"),
        ("answered after the load", f"{report.answered_late}"),
        ("seen after its arrival", f"p99 {report.seen_after or 0:.1f} s"),
        ("executed again", f"{report.found.executed_again}, harmless, because executions only read"),
        ("delivered again", f"{report.found.delivered_again}, dropped by their ids"),
        ("messages left in broker", f"{report.found.messages}"),
        ("verdict", report.summary.verdict),
    ]


def as_json(report: Report) -> dict[str, Any]:
    """For ``--json``."""
    return {
        "profile": asdict(report.run.profile),
        "redis_faults": report.run.faults == "all",
        "rate": report.run.rate,
        "patience": report.run.patience,
        **report.summary.as_json(),
        "longest_wait": round(report.longest_wait, 1),
        "answered_after_the_load": report.answered_late,
        "seen_after_p99": report.seen_after,
        "executed_again": report.found.executed_again,
        "delivered_again": report.found.delivered_again,
        "messages_left": report.found.messages,
    }
