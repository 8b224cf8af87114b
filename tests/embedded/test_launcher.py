"""The launcher's markers and sentences; one test makes a real environment."""

import fcntl
import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

CLONE = Path(__file__).resolve().parents[2]


def load(clone: Path) -> ModuleType:
    """The launcher of a clone, as a module."""
    loader = importlib.machinery.SourceFileLoader("airlock_launcher", str(clone / "airlock"))
    spec = importlib.util.spec_from_loader("airlock_launcher", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone with a launcher, requirements that need nothing, and a command line that says how it was called."""
    clone = tmp_path / "clone"
    (clone / "requirements").mkdir(parents=True)
    (clone / "cli").mkdir()
    shutil.copy(CLONE / "airlock", clone / "airlock")
    for name in ("run", "test"):
        (clone / "requirements" / f"{name}.txt").write_text("# nothing\n")
    (clone / "cli" / "__init__.py").touch()
    (clone / "cli" / "__main__.py").write_text("import os, sys; print('called', sys.argv[1:], os.getcwd())")
    return clone


@pytest.fixture
def launcher(clone: Path) -> ModuleType:
    return load(clone)


def mark_installed(launcher: ModuleType, *names: str) -> None:
    """As if these had been installed."""
    python = Path(launcher.PYTHON)
    python.parent.mkdir(parents=True, exist_ok=True)
    if not python.exists():
        python.symlink_to(sys.executable)
    for name in names:
        Path(launcher.marker(name)).write_text(launcher.fingerprint(name))


def test_what_was_installed_is_not_installed_again(launcher: ModuleType) -> None:
    assert not launcher.is_installed("run")
    mark_installed(launcher, "run")
    assert launcher.is_installed("run")
    assert not launcher.is_installed("test")


def test_changed_requirements_are_installed_again(launcher: ModuleType, clone: Path) -> None:
    mark_installed(launcher, "run")
    (clone / "requirements" / "run.txt").write_text("# something else\n")
    assert not launcher.is_installed("run")


def test_another_python_is_installed_for_again(launcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    mark_installed(launcher, "run")
    monkeypatch.setattr(launcher, "VERSION", "python3.99")
    assert not launcher.is_installed("run")


def test_an_install_that_was_cut_off_is_made_anew(launcher: ModuleType) -> None:
    mark_installed(launcher, "run")
    Path(launcher.UNFINISHED).touch()
    assert not launcher.is_installed("run")
    left = Path(launcher.VENV) / "left"
    left.touch()
    launcher.make_venv_where_needed()
    assert not left.exists()


def test_two_launchers_at_once_wait_for_each_other(clone: Path, launcher: ModuleType) -> None:
    descriptor = os.open(clone, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with subprocess.Popen(
        [sys.executable, str(clone / "airlock"), "up"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stderr is not None
        assert "another airlock is setting up this clone" in waiting.stderr.readline()
        mark_installed(launcher, "run")  # meanwhile the first one gets done
        os.close(descriptor)
        output, errors = waiting.communicate(timeout=30)
    assert "called ['up']" in output
    assert "making a virtual environment" not in errors


def test_it_works_from_anywhere_and_leaves_the_working_directory(
    clone: Path, launcher: ModuleType, tmp_path: Path
) -> None:
    mark_installed(launcher, "run")
    (tmp_path / "commands.py").write_text("raise SystemExit('a stranger in the working directory')")
    done = subprocess.run(
        [sys.executable, str(clone / "airlock"), "status", "--json"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout == f"called ['status', '--json'] {tmp_path}\n"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Temporary failure in name resolution", "cannot be reached"),
        ("No space left on device", "The disk is full"),
        ("THESE PACKAGES DO NOT MATCH THE HASHES", "not the pinned one"),
        ("something else", "Fix the error that pip reports"),
    ],
)
def test_a_failed_install_says_what_to_do(launcher: ModuleType, said: str, advice: str) -> None:
    explained = launcher.explain_pip(["Collecting x", f"ERROR: {said}"])
    assert said in explained
    assert advice in explained


def test_a_python_that_is_too_new_for_a_package_is_named(launcher: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    error = "ERROR: Could not find a version that satisfies the requirement orjson (from versions: none)"
    assert "cannot be reached" in launcher.explain_pip([error])
    monkeypatch.setattr(launcher.sys, "version_info", (3, 15, 0))
    assert "python3.14 airlock up" in launcher.explain_pip([error])


def test_a_python_without_venv_is_told_what_to_install(launcher: ModuleType) -> None:
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    assert f"apt install python{version}-venv" in launcher.explain_venv("ensurepip is not available")


def test_an_old_python_gets_a_sentence(clone: Path, tmp_path: Path) -> None:
    pretend = f"import sys, runpy; sys.version_info = (3, 9, 1); runpy.run_path({str(clone / 'airlock')!r})"
    done = subprocess.run([sys.executable, "-c", pretend], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Airlock needs Python 3.11 or newer" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_launcher_parses_on_an_old_python() -> None:
    import ast

    ast.parse((CLONE / "airlock").read_text(), feature_version=(3, 7))


def test_first_use_makes_an_environment_and_the_second_is_quick(clone: Path) -> None:
    command = [sys.executable, str(clone / "airlock"), "test", "-k", "x"]
    first = subprocess.run(command, capture_output=True, text=True)
    assert "called ['test', '-k', 'x']" in first.stdout, first.stderr
    assert "making a virtual environment" in first.stderr
    assert (clone / ".venv" / "airlock-run").exists()
    assert (clone / ".venv" / "airlock-test").exists()
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.stdout == first.stdout
    assert second.stderr == ""
