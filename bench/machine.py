"""A description of the machine and of the versions, without which a figure has no meaning."""

import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.celery.environment import REQUIREMENTS
from embedded.versions import server_versions

PACKAGES = ("temporalio", "fastapi", "granian", "asyncpg")


def describe_machine() -> dict[str, str]:
    """The machine, and the versions of servers and libraries."""
    return {
        "cores": str(os.cpu_count()),
        "cpu": _processor(Path("/proc/cpuinfo")),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        **{name.lower(): version for name, version in server_versions().items()},
        **{name: version(name) for name in PACKAGES},
        "celery": _pinned("celery", REQUIREMENTS.read_text()),
    }


def in_words(machine: Mapping[str, str]) -> str:
    """The description as one paragraph."""
    hardware = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory']}, {machine['kernel']}"
    shown = {
        "postgresql": "PostgreSQL",
        "valkey": "Valkey",
        "redis": "Redis",
        "temporal": "Temporal server",
        "celery": "Celery",
    }
    others = [
        f"{shown.get(name, name.capitalize() if name == 'python' else name)} {text}"
        for name, text in machine.items()
        if name not in ("cores", "cpu", "memory", "kernel")
    ]
    return f"{hardware}; {', '.join(others)}"


def _processor(path: Path) -> str:
    """The CPU's model from /proc/cpuinfo, or what Python knows."""
    found = re.search(r"^model name\s*: (.+)$", path.read_text() if path.exists() else "", re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _pinned(package: str, requirements: str) -> str:
    found = re.search(rf"^{package}(?:\[[^]]*\])?==(\S+)", requirements, re.MULTILINE)
    return found[1] if found else "unknown"
