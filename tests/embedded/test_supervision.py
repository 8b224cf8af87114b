"""The supervisor, with small Python programs for servers."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedded.errors import CannotStart
from embedded.process import Process, ProcessSpec
from embedded.supervisor import Supervisor
from embedded.terminal import LogFile, Terminal
from tests.embedded.waiting import Screen, eventually, is_alive

CLONE = Path(__file__).resolve().parents[2]
SERVES = "print('serving', flush=True); import time; time.sleep(600)"
WITH_CHILD = (
    "import subprocess, sys, time; c = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print('child', c.pid, flush=True); time.sleep(600)"
)


def program(name: str, code: str, says: str | None = "serving", **treatment: object) -> ProcessSpec:
    """A Python program that is ready once it has printed ``says``."""

    async def ready(process: Process) -> None:
        if says is not None:
            await process.wait_for_line(says)

    return ProcessSpec(name=name, argv=(sys.executable, "-c", code), ready=ready, **treatment)  # type: ignore[arg-type]


async def test_what_dies_is_started_again_with_backoff_and_it_is_said(supervisor: Supervisor, screen: Screen) -> None:
    await supervisor.start(program("server", SERVES))
    pids = [supervisor.pids()["server"]]
    for start, delay in enumerate(("0.2", "0.4"), 2):
        os.kill(pids[-1], signal.SIGKILL)
        await screen.shows(f"killed by SIGKILL, starting again in {delay} s")
        await eventually(lambda wanted=start: screen.getvalue().count("ready in") == wanted)  # type: ignore[misc]
        pids.append(supervisor.pids()["server"])
    assert len(set(pids)) == 3


async def test_a_check_that_loses_its_cancellation_does_not_keep_the_process_from_starting_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    starts = 0

    async def ready(_process: Process) -> None:
        nonlocal starts
        starts += 1
        if starts == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()  # as `asyncio.wait_for` of Python 3.11 may do

    fails_once = "import os, time\ntry:\n    os.mkdir('once')\nexcept FileExistsError:\n    time.sleep(600)\n"
    starting = asyncio.create_task(
        supervisor.start(ProcessSpec("server", (sys.executable, "-c", fails_once), ready, cwd=tmp_path))
    )
    await eventually(lambda: starting.done())
    starting.result()
    assert starts == 2


async def test_every_new_pid_is_announced(tmp_path: Path, screen: Screen) -> None:
    seen: list[dict[str, int]] = []
    supervisor = Supervisor(Terminal(screen), tmp_path, lambda: seen.append(supervisor.pids()))
    try:
        await supervisor.start(program("server", SERVES))
        os.kill(seen[0]["server"], signal.SIGKILL)
        await eventually(lambda: len(seen) == 2)
        assert seen[1]["server"] != seen[0]["server"]
    finally:
        await supervisor.stop()


async def test_a_dead_process_takes_its_group_along(supervisor: Supervisor, screen: Screen) -> None:
    await supervisor.start(program("parent", WITH_CHILD, says="child"))
    child = int(screen.getvalue().split("child ")[1].split()[0])
    assert is_alive(child)
    os.kill(supervisor.pids()["parent"], signal.SIGKILL)
    await eventually(lambda: not is_alive(child))


async def test_what_never_starts_is_given_up_with_its_last_lines(supervisor: Supervisor) -> None:
    with pytest.raises(CannotStart) as raised:
        await supervisor.start(program("broken", "print('no disk here'); raise SystemExit(3)"))
    assert "broken ended 5 times before it was ready, last with exit code 3" in str(raised.value)
    assert "no disk here" in str(raised.value)


async def test_a_missing_program_is_a_sentence(supervisor: Supervisor) -> None:
    async def ready(_process: Process) -> None:
        await asyncio.Event().wait()

    with pytest.raises(CannotStart, match="No such file"):
        await supervisor.start(ProcessSpec(name="absent", argv=("/nonexistent/server",), ready=ready))


async def test_what_takes_too_long_to_get_ready_is_killed(supervisor: Supervisor) -> None:
    with pytest.raises(CannotStart, match=r"slow: not ready within 0\.5 s"):
        await supervisor.start(program("slow", SERVES, says="never", ready_timeout=0.5))
    assert supervisor.pids() == {}


async def test_stopping_goes_by_stop_order_and_leaves_nothing(supervisor: Supervisor, screen: Screen) -> None:
    await supervisor.start(
        program("store", SERVES, stop_order=2),
        program("worker", SERVES, stop_order=0),
        program("api", WITH_CHILD, "child", stop_order=1),
    )
    child = int(screen.getvalue().split("child ")[1].split()[0])
    pids = [*supervisor.pids().values(), child]
    await supervisor.stop()
    assert not any(is_alive(pid) for pid in pids)
    stopped = [line.split()[0] for line in screen.getvalue().splitlines() if line.endswith("stopped")]
    assert stopped == ["worker", "api", "store"]


async def test_what_does_not_stop_is_killed_and_it_is_said(supervisor: Supervisor, screen: Screen) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVES
    await supervisor.start(program("deaf", deaf, stop_timeout=0.3))
    await supervisor.stop()
    assert "did not stop within 0.3 s, killing it" in screen.getvalue()


async def test_hurrying_does_not_wait(supervisor: Supervisor, screen: Screen) -> None:
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SERVES
    await supervisor.start(program("deaf", deaf, stop_timeout=600))
    stopping = asyncio.create_task(supervisor.stop())
    await asyncio.sleep(0)
    supervisor.hurry()
    async with asyncio.timeout(10):
        await stopping


async def test_only_what_is_worth_it_is_shown_but_all_is_logged(
    supervisor: Supervisor, screen: Screen, tmp_path: Path
) -> None:
    code = "print('LOG: routine'); print('ERROR: serious');" + SERVES
    await supervisor.start(program("server", code, shown=lambda line: "ERROR" in line))
    assert "server          | ERROR: serious" in screen.getvalue()
    assert "routine" not in screen.getvalue()
    assert (tmp_path / "logs" / "server.log").read_text().splitlines() == ["LOG: routine", "ERROR: serious", "serving"]


def test_a_full_log_file_is_put_aside(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "a.log", limit=10)
    for line in ("first line", "second line", "third line"):
        log.write(line)
    log.close()
    assert (tmp_path / "a.log").read_text() == "third line\n"
    assert (tmp_path / "a.log.1").read_text() == "second line\n"


PARENT = """
import asyncio, sys
from pathlib import Path
from tests.embedded.test_supervision import SERVES, WITH_CHILD, program
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal

async def main():
    supervisor = Supervisor(Terminal(), Path(sys.argv[1]))
    await supervisor.start(program("plain", SERVES), program("parent", WITH_CHILD, "child"))
    print("pids", *supervisor.pids().values(), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_no_child_or_grandchild_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(CLONE), os.environ.get("PYTHONPATH"))))},
    ) as parent:
        assert parent.stdout is not None
        pids: list[int] = []
        for line in parent.stdout:
            if "| child " in line:
                pids.append(int(line.split()[-1]))
            if line.startswith("pids"):
                pids += [int(word) for word in line.split()[1:]]
                break
        assert len(pids) == 3
        assert all(is_alive(pid) for pid in pids)
        parent.kill()
    await eventually(lambda: not any(is_alive(pid) for pid in pids))
