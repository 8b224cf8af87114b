"""The whole thing, as a user runs it: once where all is well, once where a hand has been in the database."""

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from chaos.ledger import Ledger, read_ledger
from chaos.running import environment_for
from configuration.home import CLONE

PATIENCE = 240.0
"""For a condition to come true; as long as a busy machine may need."""


class Run:
    """`airlock chaos` in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *arguments: str) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli", "chaos", "--home", str(self.directory), "--json", *arguments),
            env=environment_for(self.directory / "none"),
            cwd=CLONE,
            stdout=asyncio.subprocess.PIPE,
        )

    async def finish(self) -> tuple[int, dict[str, Any]]:
        """Exit code and summary."""
        assert self._process is not None
        output, _ = await self._process.communicate()
        summary: dict[str, Any] = json.loads(output)
        return self._process.returncode or 0, summary

    def interrupt(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def family(self) -> list[psutil.Process]:
        assert self._process is not None
        return psutil.Process(self._process.pid).children(recursive=True)

    @property
    def ledger(self) -> Ledger:
        path = self.directory / "ledger.ndjson"
        return read_ledger(path) if path.exists() else Ledger()

    async def until(self, has_come: Callable[[Ledger], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not has_come(self.ledger):
                assert self._process is not None
                assert self._process.returncode is None, "it ended too soon"
                await asyncio.sleep(0.1)

    async def end(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            await self._process.wait()


@pytest.fixture
async def run(tmp_path: Path) -> AsyncIterator[Run]:
    made = Run(tmp_path / "run")
    yield made
    await made.end()


async def test_nothing_is_lost_doubled_or_altered_under_kills_and_a_bad_link(run: Run) -> None:
    await run.start("--seed", "2", "--minutes", "0.3", "--rate", "8", "--faults", "kill,link-corrupt,link-truncate")
    code, summary = await run.finish()
    assert (code, summary["verdict"], summary["discrepancies"]) == (0, "done", [])
    assert sum(summary["faults"].values()) >= 3
    assert summary["accepted"] == summary["completed"] + summary["failed"] == summary["read_again"]
    assert summary["accepted"] + summary["refused"] == summary["submitted"] > 100
    assert summary["settings_changes"] > 3
    assert summary["verify"] == "agrees"
    assert set(summary["fates"].values()) == {0}
    assert json.loads((run.directory / "summary.json").read_text()) == summary


async def test_a_result_that_a_hand_removed_is_named(run: Run) -> None:
    await run.start("--seed", "1", "--minutes", "0.2", "--rate", "4", "--faults", "flush")
    await run.until(lambda ledger: bool(ledger.again))
    up = json.loads((run.directory / "home" / "up.json").read_text())
    removed = next(iter(run.ledger.again))
    connection = await asyncpg.connect(up["databases"]["request"])
    try:
        assert await connection.execute("DELETE FROM results WHERE request_id = $1", removed) == "DELETE 1"
    finally:
        await connection.close()
    code, summary = await run.finish()
    assert (code, summary["verdict"], summary["verify"]) == (1, "differs", "differs")
    assert {"fate": "lost", "what": removed, "found": "not there"}.items() <= summary["discrepancies"][-1].items()
    assert any("verify results" in each["what"] and removed in each["found"] for each in summary["discrepancies"])
    assert summary["fates"]["lost"] == 1


async def test_ctrl_c_stops_everything_and_says_what_was_found_so_far(run: Run) -> None:
    await run.start("--seed", "1", "--minutes", "5", "--rate", "4", "--faults", "stop")
    await run.until(lambda ledger: bool(ledger.results))
    family = run.family()
    assert family
    run.interrupt()
    code, summary = await run.finish()
    assert (code, summary["verdict"], summary["discrepancies"]) == (2, "interrupted", [])
    assert summary["completed"]
    _, left = await asyncio.to_thread(psutil.wait_procs, family, 10)
    assert not left
