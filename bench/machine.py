"""A description of the machine and of the versions, without which a figure has no meaning."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from bench.celery.environment import REQUIREMENTS
from embedded.postgres import find_server
from embedded.redis import find_redis_server
from embedded.temporal import find_temporal

PACKAGES = ("temporalio", "fastapi", "granian", "asyncpg")


def describe_machine() -> dict[str, str]:
    """The machine, and the versions of servers and libraries."""
    return {
        "cores": str(os.cpu_count()),
        "cpu": _processor(Path("/proc/cpuinfo")),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "postgresql": _said(str(find_server() / "postgres"), r"PostgreSQL\) ([\d.]+)"),
        "redis": _said(find_redis_server(), r"v=([\d.]+)"),
        "temporal": _said(find_temporal(), r"Server ([\d.]+)"),
        **{name: version(name) for name in PACKAGES},
        "celery": _pinned("celery", REQUIREMENTS.read_text()),
    }


def in_words(machine: Mapping[str, str]) -> str:
    """The description as one paragraph."""
    hardware = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory']}, {machine['kernel']}"
    shown = {"postgresql": "PostgreSQL", "redis": "Redis", "temporal": "Temporal server", "celery": "Celery"}
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


def _said(program: str, pattern: str) -> str:
    """The version that a program prints."""
    said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30)  # noqa: S603
    found = re.search(pattern, said.stdout)
    return found[1] if found else "unknown"


def _pinned(package: str, requirements: str) -> str:
    found = re.search(rf"^{package}(?:\[[^]]*\])?==(\S+)", requirements, re.MULTILINE)
    return found[1] if found else "unknown"
