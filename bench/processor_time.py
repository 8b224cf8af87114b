"""Processor time of a measurement: by process, and PostgreSQL's by database."""

import re
from collections import defaultdict
from collections.abc import Mapping

import psutil

_SERVING = re.compile(r"^postgres: (?:\S+: )?(airlock|bench)_(\w+) \S+ 127")
_NUMBER = re.compile(r"-\d+$")


def processor_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """User and system time of these processes so far, in seconds; numbered ones of a kind together."""
    taken: defaultdict[str, float] = defaultdict(float)
    for name, pid in pids.items():
        for process in _with_children(pid) if name == "postgres" else _existing(pid):
            try:
                times = process.cpu_times()
                kind = _NUMBER.sub("", name) if name != "postgres" else _postgres_kind(process.cmdline())
            except psutil.Error:
                continue
            taken[kind] += times.user + times.system
    return taken


def _postgres_kind(title: list[str]) -> str:
    found = _SERVING.match(" ".join(title))
    return f"postgres, {found[2]} database" if found else "postgres, background"


def _existing(pid: int) -> list[psutil.Process]:
    try:
        return [psutil.Process(pid)]
    except psutil.Error:
        return []


def _with_children(pid: int) -> list[psutil.Process]:
    return [each for parent in _existing(pid) for each in (parent, *parent.children())]
