"""The audit of dependencies: what is pinned, by what, and that it is what runs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cli.checks import checks
from cli.dependencies import Pin, check, differences, read_pins
from configuration.home import CLONE
from embedded.versions import OLDEST, outdated, server_versions

HASH = "--hash=sha256:" + "a" * 64


def test_this_clone_runs_what_it_pins() -> None:
    wrong, count = check(CLONE / "requirements")
    assert not wrong
    assert count > 50


def test_the_project_declares_what_it_runs_on() -> None:
    """Once for tools that read pyproject.toml, once as what the pins are made of."""
    declared = tomllib.loads((CLONE / "pyproject.toml").read_text())["project"]["dependencies"]
    lines = (CLONE / "requirements" / "run.in").read_text().splitlines()
    assert declared == [line.partition("  #")[0] for line in lines if line and not line.startswith("#")]


def test_it_is_a_part_of_airlock_test(tmp_path: Path) -> None:
    command = checks(tmp_path)["dependencies"]
    ended = subprocess.run(command, cwd=CLONE, capture_output=True, text=True, check=False)
    assert (ended.returncode, "each pinned to one version" in ended.stdout) == (0, True), ended.stdout + ended.stderr
    assert command[0] == sys.executable


def test_the_servers_that_are_shipped_are_not_too_old() -> None:
    """As they say themselves: a package's version says little about the server in it."""
    versions = server_versions()
    assert set(versions) == {"PostgreSQL", "Valkey", "Temporal"}
    assert outdated(versions) == []
    assert all(oldest.why for oldest in OLDEST.values())


def test_a_server_that_is_too_old_or_unknown_is_named() -> None:
    found = outdated({"Redis": "6.2.5", "Valkey": "9.1.10", "PostgreSQL": "18.5", "Temporal": "1.4.0", "Else": "1"})
    assert [sentence.split(":")[0] for sentence in found] == [
        "Redis 6.2.5 is older than 7.2.11",
        "PostgreSQL 18.5 is older than 18.6",
        "Temporal 1.4.0 is older than 1.32.0",
        "Else 1 is not in the table of embedded/versions.py",
    ]


def test_the_audit_names_the_servers() -> None:
    ended = subprocess.run(checks(CLONE)["dependencies"], cwd=CLONE, capture_output=True, text=True, check=False)
    assert "servers: PostgreSQL " in ended.stdout


def test_a_pin_with_its_hashes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "run.txt"
    file.write_text(
        f'# by hand\nSome_Name[extra]==1.2 ; python_version > "3" \\\n    {HASH} \\\n    {HASH}\n    # via x\n'
    )
    assert read_pins(file) == ([Pin("some-name", "1.2", True)], [])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("name==1.2", "has no SHA-256"),
        ("name==1.2 --hash=md5:" + "a" * 32, "has no SHA-256"),
        (f"name==1.2 {HASH} --hash=sha256:abc", "has no SHA-256"),
        (f"name>=1.2 {HASH}", "not pinned to one version"),
        (f"name==1.* {HASH}", "not pinned to one version"),
        (f"name {HASH}", "not pinned to one version"),
        (f"name==1,<2 {HASH}", "not pinned to one version"),
        ("--index-url somewhere", "names an address"),
        ("  -i somewhere", "names an address"),
        ("# from https://somewhere", "names an address"),
        ("--find-links here", "names an address"),
        ("-e .", "names an address"),
        (f"name @ file:///here {HASH}", "names an address"),
        ("===", "not a requirement"),
    ],
)
def test_what_is_not_pinned_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "run.txt"
    file.write_text(f"good==1 {HASH}\n{line}\n")
    pins, wrong = read_pins(file)
    assert [item for item in wrong if said in item], wrong
    assert pins[0] == Pin("good", "1", True)


def test_what_is_missing_different_or_too_much_is_named() -> None:
    pins = [Pin("same", "1", True), Pin("other", "2", True), Pin("gone", "3", True), Pin("elsewhere", "4", False)]
    installed = {"same": "1", "other": "2.1", "unasked": "5", "pip": "1", "elsewhere": "4"}
    assert differences(pins, installed) == [
        "gone: 3 is pinned, nothing is installed",
        "other: 2 is pinned, 2.1 is installed",
        "elsewhere 4 is installed and not pinned",
        "unasked 5 is installed and not pinned",
    ]
