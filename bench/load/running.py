"""Starts the generator as a process and reads its outcome."""

import asyncio
from pathlib import Path

from bench.figures import NotMeasured
from bench.load.order import Order, Outcome
from chaos.running import environment_for, last_lines, spawn


async def load(order: Order, directory: Path) -> Outcome:
    """Execute an order. Raises `NotMeasured` if the generator failed, not if answers were wrong."""
    path, log = _written(order, directory), directory / "load.log"
    process = await spawn("bench.load", str(path), environment=environment_for(directory), log=log, piped=True)
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode != 0:
        raise NotMeasured(f"the load generator ended with {process.returncode}:\n{last_lines(log)}")
    return Outcome.from_json(output.decode())


def _written(order: Order, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "order.json"
    path.write_text(order.to_json())
    return path


async def clean_load(order: Order, directory: Path) -> Outcome:
    """As `load`; raises `NotMeasured` if an answer was wrong."""
    outcome = await load(order, directory)
    if outcome.wrong:
        raise NotMeasured(
            f"{outcome.wrong} of {outcome.begun} calls were not answered as they must be: {faults(outcome)}"
        )
    return outcome


def faults(outcome: Outcome) -> str:
    """The problems in words."""
    said = [f"{problem} ({count})" for problem, count in outcome.problems.items()]
    if outcome.unfinished:
        said.append(f"no answer at all ({outcome.unfinished})")
    return ", ".join(said) or "nothing"
