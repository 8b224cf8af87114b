"""`airlock test`: every check that a change must pass, the fastest first."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from cli.errors import fail
from cli.output import say
from configuration.home import CLONE

QUICK = (
    *("tests/models", "tests/configuration", "tests/exchange", "tests/execution", "tests/cache", "tests/storage"),
    *("tests/activities", "tests/alarms", "tests/quarantine"),
)
"""Tests of ``--quick``: pure functions, and activities on a real PostgreSQL and Redis. Temporal, the APIs, whole
Airlocks, fuzzing, faults and measurements are left out."""

PARALLEL = ("-n", "auto", "--maxprocesses", "4", "--dist", "loadfile")
"""For the whole suite: a process for each core, each with servers of its own. Tests of one file share a process."""


def checks(programs: Path) -> dict[str, list[str]]:
    """The checks before the tests, by name."""
    return {
        "ruff check": [str(programs / "ruff"), "check", "."],
        "ruff format": [str(programs / "ruff"), "format", "--check", "."],
        "mypy": [sys.executable, "-m", "mypy", "."],
        "import-linter": [str(programs / "lint-imports")],
        "dependencies": [sys.executable, "-m", "cli.dependencies"],
    }


def run_checks(
    quick: Annotated[
        bool,
        typer.Option(
            "--quick",
            help="In under two minutes: ruff, mypy, import-linter, and the tests of models, wire format, executors,"
            " storage and activities. Left out: workflows on Temporal, both APIs, the link, recovery, security,"
            " whole systems under faults, the audit of dependencies.",
        ),
    ] = False,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[PYTEST ARGUMENTS]", help="With any, only pytest runs.")
    ] = None,
) -> None:
    """Run ruff, mypy, import-linter, an audit of dependencies and pytest. Fails if one of them fails.

    With arguments, only pytest runs: airlock test tests/models -k uuid.
    """
    programs = Path(sys.executable).parent
    if not (programs / "ruff").exists():
        raise fail("the packages of the tests are not installed; run ./airlock test, which installs them")
    before = {} if arguments else checks(programs)
    if quick:
        before.pop("dependencies", None)
    failed = [name for name, command in before.items() if not _passes(name, command)]
    if failed:
        say("")
        say(f"failed so far: {', '.join(failed)}", colour=typer.colors.RED)
    _heading("pytest")
    ended = _run([sys.executable, "-m", "pytest", *(QUICK if quick else ()), *(arguments or PARALLEL)])
    if ended or failed:
        raise typer.Exit(ended or 1)


def _passes(name: str, command: list[str]) -> bool:
    _heading(name)
    started = time.monotonic()
    code = _run(command)
    good = code == 0
    word, colour = ("passed", typer.colors.GREEN) if good else ("failed", typer.colors.RED)
    say(f"{name} {word} in {time.monotonic() - started:.1f} s", colour=colour)
    return good


def _heading(name: str) -> None:
    say("")
    say(f"== {name}", bold=True)


def _run(command: list[str]) -> int:
    """Run a command in the clone and return its exit code. On Ctrl-C, wait until it has ended."""
    sys.stdout.flush()
    with subprocess.Popen(command, cwd=CLONE, env=os.environ | {"PYTHONPATH": str(CLONE)}) as process:  # noqa: S603
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue  # the command got the same signal and is stopping its servers
