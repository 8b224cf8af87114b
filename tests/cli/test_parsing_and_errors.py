"""What the command line accepts, and the sentences that it fails with."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli import checks
from configuration.home import CLONE
from tests.cli.conftest import Airlock


def in_a_process(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "cli", *arguments],
        cwd=CLONE,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_help_imports_nothing_heavy() -> None:
    listing = "import sys, cli.program; print(' '.join(sys.modules))"
    ended = subprocess.run(
        [sys.executable, "-c", listing], cwd=CLONE, capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {
        "temporalio",
        "sqlalchemy",
        "fastapi",
        "pydantic",
        "asyncpg",
        "embedded",
        "sample",
        "airportsdata",
        "worker",
    }
    assert not heavy & set(ended.stdout.split())
    assert "schedules" in in_a_process("--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("api",),
        ("api", "both"),
        ("worker", "both"),
        ("migrate",),
        ("preview", "requests"),
        ("schedules", "nonsense"),
        ("schedules", "trigger"),
        ("schedules", "backfill", "export-results", "--start", "2026-01-01"),
        ("users", "create", "olga"),
        ("users", "create", "olga", "--role", "king"),
        ("keys", "create"),
    ],
    ids=" ".join,
)
def test_what_is_not_a_command_is_refused(airlock: Airlock, arguments: tuple[str, ...]) -> None:
    result = airlock(*arguments)
    assert result.exit_code == 2
    assert result.stderr
    assert not result.stdout


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize(
    "arguments",
    [
        ("api", "response"),
        ("api", "request"),
        ("migrate", "response"),
        ("status",),
        ("streams",),
        ("preview",),
        ("schedules", "list"),
        ("users", "list"),
    ],
    ids=" ".join,
)
def test_without_configuration_the_variable_is_named(airlock: Airlock, arguments: tuple[str, ...]) -> None:
    result = airlock(*arguments)
    assert result.exit_code == 2
    assert f"AIRLOCK_{'REQUEST' if 'request' in arguments else 'RESPONSE'}_DATABASE_URL: not set" in result.stderr
    assert not result.stdout


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("arguments", [("streams",), ("preview",), ("users", "list"), ("migrate", "response")])
def test_a_database_that_is_away_is_named(
    airlock: Airlock, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", "postgresql://a:hidden@127.0.0.1:1/c")
    result = airlock(*arguments)
    assert result.exit_code == 1
    assert "PostgreSQL at 127.0.0.1:1 does not answer" in result.stderr
    assert "AIRLOCK_RESPONSE_DATABASE_URL" in result.stderr
    assert "hidden" not in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [("schedules", "list"), ("schedules", "trigger", "export-results")])
def test_a_temporal_that_is_away_is_named_and_the_process_ends_cleanly(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    ended = in_a_process(
        *arguments,
        AIRLOCK_HOME=str(tmp_path),
        AIRLOCK_RESPONSE_DATABASE_URL="postgresql://a:b@127.0.0.1:1/c",
        AIRLOCK_RESPONSE_TEMPORAL_ADDRESS="127.0.0.1:1",
    )
    assert ended.returncode == 1, "1 and not a crash of the interpreter"
    assert ended.stdout == ""
    assert "Temporal at 127.0.0.1:1 does not answer" in ended.stderr
    assert "AIRLOCK_RESPONSE_TEMPORAL_ADDRESS" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_keys_are_made_once_and_kept(airlock: Airlock, tmp_path: Path) -> None:
    first = airlock("keys", "create", str(tmp_path), "--json")
    again = airlock("keys", "create", str(tmp_path), "--json")
    assert first.exit_code == 0
    assert first.stdout == again.stdout
    assert (tmp_path / "request" / "signing.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    blocked = airlock("keys", "create", str(tmp_path / "file"))
    assert blocked.exit_code == 1
    assert "cannot be made" in blocked.stderr


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Collects what `airlock test` runs instead of running it; mypy fails."""
    commands: list[list[str]] = []

    def run(command: list[str]) -> int:
        commands.append(command)
        return int("mypy" in command)

    monkeypatch.setattr(checks, "_run", run)
    return commands


def test_all_checks_run_even_when_one_fails(airlock: Airlock, ran: list[list[str]]) -> None:
    result = airlock("test")
    assert result.exit_code == 1
    assert len(ran) == 6
    assert ran[-1][1:] == ["-m", "pytest", *checks.PARALLEL]
    assert "failed so far: mypy" in result.stdout


def test_the_inner_loop_runs_the_checks_and_a_part_of_the_tests(airlock: Airlock, ran: list[list[str]]) -> None:
    airlock("test", "--quick")
    assert len(ran) == 5
    assert ran[-1][1:] == ["-m", "pytest", *checks.QUICK, *checks.PARALLEL]
    assert all((CLONE / directory).is_dir() for directory in checks.QUICK)
    del ran[:]
    airlock("test", "--quick", "-x")
    assert [command[1:] for command in ran] == [["-m", "pytest", *checks.QUICK, "-x"]]


def test_the_help_says_what_the_inner_loop_leaves_out(airlock: Airlock) -> None:
    assert "Left out" in airlock("test", "--help").stdout


def test_the_version_is_that_of_the_project() -> None:
    ended = in_a_process("--version")
    project = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]
    assert (ended.returncode, ended.stdout) == (0, f"airlock {project['version']}\n")


def test_with_arguments_only_pytest_runs(airlock: Airlock, ran: list[list[str]]) -> None:
    result = airlock("test", "-x", "tests/models", "-k", "one or two", "--help")
    assert result.exit_code == 0
    assert [command[1:] for command in ran] == [["-m", "pytest", "-x", "tests/models", "-k", "one or two", "--help"]]
