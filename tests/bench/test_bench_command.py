"""`airlock bench` as it is called: what it refuses, what it says, and how it ends."""

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import bench.catalogue
import bench.read
from bench.catalogue import FIGURES
from bench.contestants import airlock, plain
from bench.figures import LIMIT, OURS, Figure, Line, NotMeasured, Options, Spread
from chaos.running import environment_for
from cli.program import app
from configuration.home import CLONE


class Quick(Figure):
    """A figure that takes no time."""

    name = "quick"

    async def measure(self, options: Options) -> Sequence[Line]:
        rounds = Spread(tuple(float(number) for number in range(1, options.rounds + 1)))
        return [Line("a quick thing", "calls/s", "≥ 9 calls/s", False, {OURS: rounds}, f"at {options.scale:g}")]


class Broken(Figure):
    """A figure that cannot be measured."""

    name = "broken"

    async def measure(self, options: Options) -> Sequence[Line]:
        raise NotMeasured("the server is away: start it")


class Mistaken(Quick):
    """A figure with a mistake in it."""

    name = "mistaken"

    async def measure(self, options: Options) -> Sequence[Line]:
        raise ZeroDivisionError("of a kind")


@pytest.fixture
def _two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.catalogue, "FIGURES", (Broken, Quick))


def test_the_figures_are_listed_and_each_says_what_it_measures() -> None:
    ended = CliRunner().invoke(app, ["bench", "--list"])
    assert ended.exit_code == 0
    for figure in FIGURES:
        assert figure.name in ended.stdout
        assert bench.catalogue.described(figure)
        assert figure.rounds % 2 == 1, "an odd number has a median that was measured"
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nothing"], "there is no figure 'nothing'; there are lone, "),
        (["--json", "/nowhere/run.json"], "/nowhere/run.json cannot be written"),
        (["--json", "/"], "/ cannot be written"),
        (["--plot", "/tmp/chart.txt"], "is no chart: name a file that ends with .svg or .png"),
        (["--compare", "/nowhere/run.json"], "/nowhere/run.json cannot be read as an earlier run"),
        (["--rounds", "0"], "Invalid value for '--rounds'"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_before_anything_is_measured(arguments: list[str], says: str) -> None:
    ended = CliRunner().invoke(app, ["bench", *arguments])
    assert ended.exit_code == 2
    assert says in ended.stderr
    assert "1 of" not in ended.stderr


@pytest.mark.usefixtures("_two_figures")
def test_a_figure_that_cannot_be_measured_is_said_and_the_others_are_measured(tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["bench", "--json", str(tmp_path / "run.json")])
    assert ended.exit_code == 2
    assert "broken was not measured: the server is away: start it" in ended.stdout
    assert "a quick thing falls short: 3.00 calls/s, the aim is ≥ 9 calls/s" in ended.stdout
    written = json.loads((tmp_path / "run.json").read_text())
    assert written["figures"]["quick"]["lines"][0]["measured"][OURS]["rounds"] == [1, 2, 3, 4, 5]
    assert written["figures"]["broken"] == {"seconds": 0.0, "lines": [], "not_measured": "the server is away: start it"}
    known = {"cores", "cpu", "memory", "kernel", "postgresql", "valkey", "temporal", "celery"}
    assert known <= written["machine"].keys()
    assert "unknown" not in written["machine"].values()


def test_a_mistake_in_one_figure_does_not_cost_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.catalogue, "FIGURES", (Mistaken, Quick))
    ended = CliRunner().invoke(app, ["bench"])
    assert ended.exit_code == 2
    assert "mistaken was not measured: ZeroDivisionError: of a kind" in ended.stdout
    assert "a quick thing falls short" in ended.stdout
    assert "Traceback" in ended.stderr


@pytest.mark.usefixtures("_two_figures")
def test_a_missed_aim_is_said_and_is_no_error(tmp_path: Path) -> None:
    path = str(tmp_path / "run.json")
    ended = CliRunner().invoke(app, ["bench", "quick", "--quick", "--json", path])
    assert ended.exit_code == 0
    assert "falls short" in ended.stdout
    assert "at 0.05 of the full size" in ended.stdout
    assert "quick (1 of 1)" in ended.stderr
    again = CliRunner().invoke(app, ["bench", "quick", "--rounds", "3", "--compare", path])
    assert again.exit_code == 0
    assert "Against the run of" in again.stdout
    assert "2.00 ×" in again.stdout


def test_a_small_figure_on_real_servers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the rival, whose virtual environment would have to be made first."""
    monkeypatch.setattr(bench.read, "STARTS", {OURS: airlock, LIMIT: plain})
    monkeypatch.setattr(bench.read, "RESULTS", 5)
    ended = CliRunner().invoke(app, ["bench", "read", "--quick", "--json", str(tmp_path / "run.json")])
    assert ended.exit_code == 0, ended.stderr
    (line,) = json.loads((tmp_path / "run.json").read_text())["figures"]["read"]["lines"]
    assert line["measured"].keys() == {OURS, LIMIT}
    assert "The cache answered 0" not in line["note"]
    for each in line["details"].values():
        assert (each[0]["problems"], each[0]["unfinished"]) == ({}, 0)
        assert each[0]["good"] > 50


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_stops_everything_that_was_started(number: signal.Signals, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "cli", "bench", "startup", "--quick"),
        env=environment_for(tmp_path / "none"),
        cwd=CLONE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(120):
            while not any("postgres" in each for each in _names(process.pid)):
                assert process.returncode is None
                await asyncio.sleep(0.05)
            family = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(number)
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 2
    assert "startup was not measured: interrupted" in output.decode()
    _, left = await asyncio.to_thread(psutil.wait_procs, family, 30)
    assert not left


def _names(pid: int) -> list[str]:
    names = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            names.append(child.name())
        except psutil.NoSuchProcess:
            continue
    return names
