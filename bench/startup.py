"""How long `./airlock up` takes until everything is ready: in an empty home, and in a used one."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.aims import Aim, line
from bench.asks import fresh
from bench.contestants import celery
from bench.figures import OURS, RIVAL, Figure, Line, NotMeasured, Options, Spread, in_turn
from chaos.running import environment_for, last_lines
from configuration.home import CLONE
from embedded.process import CHILD

PATIENCE = 120.0
LOOK_EVERY = 0.01


class Startup(Figure):
    """Seconds from `./airlock up` to ready, sample requests answered: the first in an empty home, and the second."""

    name = "startup"

    async def measure(self, options: Options) -> Sequence[Line]:
        """Each round has a home of its own."""
        runs = {OURS: partial(_airlock, options.root), RIVAL: partial(_celery, options.root)}
        taken = await in_turn(runs, options.rounds, 0, lambda what, got: options.say(f"{what} {_said(got)}"))
        first = {name: Spread(tuple(each["first"] for each in got)) for name, got in taken.items()}
        second = {OURS: Spread(tuple(each["second"] for each in taken[OURS]))}
        empty = "an empty home, everything installed; Celery's has no Temporal and answers no samples; no limit"
        return [
            line("first up to ready", "s", [Aim(10.0, at_most=True)], first, empty, less_is_better=True),
            line(
                "second up to ready",
                "s",
                [Aim(5.0, at_most=True)],
                second,
                "in the same home; Celery's build is always made anew",
                less_is_better=True,
            ),
        ]


async def _airlock(root: Path) -> dict[str, float]:
    directory = fresh(root, OURS)
    directory.mkdir()
    return {which: await _up(directory) for which in ("first", "second")}


async def _celery(root: Path) -> dict[str, float]:
    begin = time.perf_counter()
    async with celery(fresh(root, RIVAL)):
        return {"first": time.perf_counter() - begin}


async def _up(directory: Path) -> float:
    """Seconds until `up.json` exists, which is written when everything is ready."""
    log, up_file = directory / "up.log", directory / "home" / "up.json"
    begin = time.perf_counter()
    with log.open("ab") as file:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1", "-1"),
            *(sys.executable, str(CLONE / "airlock"), "up", "--free-ports"),
            env=environment_for(directory / "home"),
            cwd=directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        while not up_file.exists():
            if process.returncode is not None or time.perf_counter() - begin > PATIENCE:
                raise NotMeasured(f"airlock up was not ready within {PATIENCE:g} s:\n{last_lines(log)}")
            await asyncio.sleep(LOOK_EVERY)
        return time.perf_counter() - begin
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


def _said(taken: Mapping[str, float]) -> str:
    return ", ".join(f"{which} {seconds:.1f} s" for which, seconds in taken.items())
