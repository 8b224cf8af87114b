"""Checks that the installed packages are the pinned ones, and that the servers in them are not too old.

`python -m cli.dependencies`, part of `airlock test`.

It works offline. It does not look for known vulnerabilities, which needs an advisory database: see docs/security.md.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import typer
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from cli.errors import fail
from cli.output import say
from configuration.home import CLONE
from embedded.versions import outdated, server_versions

PINNED = ("run.txt", "test.txt")
TOOLS = frozenset({"pip", "setuptools", "wheel"})
"""Installed by the virtual environment itself."""

_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
_ADDRESS = re.compile(r"\w+://|^\s*(--?(index-url|extra-index-url|find-links|trusted-host|editable|i|f|e)\b)|\s@\s")


@dataclass(frozen=True)
class Pin:
    """One line of a requirements file."""

    name: str
    version: str
    wanted: bool
    """Whether its environment marker holds here."""


def read_pins(file: Path) -> tuple[list[Pin], list[str]]:
    """The pins of a file, and its errors."""
    pins: list[Pin] = []
    wrong: list[str] = []
    text = file.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        if _ADDRESS.search(line):
            wrong.append(f"{file.name}:{number} names an address: {line.strip()[:80]}")
    for line in _requirements(text):
        stated, hashes = line.partition("--hash=")[0].strip(), _HASH.findall(line)
        try:
            requirement = Requirement(stated)
        except InvalidRequirement:
            wrong.append(f"{file.name}: not a requirement: {stated[:80]}")
            continue
        exact = [part.version for part in requirement.specifier if part.operator == "=="]
        if len(requirement.specifier) != 1 or not exact or "*" in exact[0]:
            wrong.append(f"{file.name}: {requirement.name} is not pinned to one version")
            continue
        if not hashes or len(hashes) != line.count("--hash"):
            wrong.append(f"{file.name}: {requirement.name} has no SHA-256, or a malformed one")
        holds = requirement.marker is None or requirement.marker.evaluate()
        pins.append(Pin(canonicalize_name(requirement.name), exact[0], holds))
    return pins, wrong


def _requirements(text: str) -> Iterator[str]:
    """Each requirement with its hashes, as one line without comments and continuations."""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        stated = re.sub(r"(^|\s)#.*", "", line).strip()
        if stated:
            yield stated


def differences(pins: Sequence[Pin], installed: dict[str, str]) -> list[str]:
    """Packages that are missing, of another version, or not pinned."""
    pinned = {pin.name: pin.version for pin in pins if pin.wanted}
    wrong = [
        f"{name}: {version} is pinned, {installed.get(name, 'nothing')} is installed"
        for name, version in sorted(pinned.items())
        if installed.get(name) != version
    ]
    unpinned = sorted(installed.keys() - pinned.keys() - TOOLS)
    return wrong + [f"{name} {installed[name]} is installed and not pinned" for name in unpinned]


def missing_needs(installed: dict[str, str]) -> list[str]:
    """Requirements of installed packages that are not met, by their metadata."""
    wrong = []
    for distribution in distributions():
        for stated in distribution.requires or ():
            need = Requirement(stated)
            if need.marker is not None and not need.marker.evaluate({"extra": ""}):
                continue
            found = installed.get(canonicalize_name(need.name))
            if found is None or not need.specifier.contains(found, prereleases=True):
                wrong.append(
                    f"{distribution.name} needs {need.name}{need.specifier}, {found or 'nothing'} is installed"
                )
    return wrong


def check(directory: Path) -> tuple[list[str], int]:
    """All errors, and the number of pinned packages."""
    installed: dict[str, str] = {canonicalize_name(found.name): found.version for found in distributions()}
    pins: dict[str, Pin] = {}
    wrong: list[str] = []
    for name in PINNED:
        found, problems = read_pins(directory / name)
        wrong += problems
        for pin in found:
            known = pins.setdefault(pin.name, pin)
            if known.version != pin.version:
                wrong.append(f"{pin.name} is pinned twice: {known.version} and {pin.version}")
    return wrong + differences(list(pins.values()), installed) + missing_needs(installed), len(pins)


def main() -> None:
    """Print all errors and fail, or print that there is none."""
    wrong, count = check(CLONE / "requirements")
    for line in wrong:
        say(line)
    if wrong:
        raise fail("the installed packages are not the pinned ones; remove .venv and run ./airlock test")
    say(f"{count} packages: each pinned to one version with its SHA-256, and that version installed, no other")
    versions = server_versions()
    if old := outdated(versions):
        raise fail("; ".join(old) + "; pin a package with a newer server in requirements/run.in")
    say("servers: " + ", ".join(f"{name} {version}" for name, version in versions.items()))


if __name__ == "__main__":
    try:
        main()
    except typer.Exit as ended:
        sys.exit(ended.exit_code)
