"""Starts processes, restarts those that end, and stops all in order."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

from embedded.errors import CannotStart
from embedded.process import Process, ProcessSpec, how_it_ended
from embedded.terminal import LogFile, Terminal

FIRST_DELAY = 0.2
LONGEST_DELAY = 10.0
HEALTHY = 30.0
"""A process that ran for this many seconds is restarted as if for the first time."""
ATTEMPTS = 5
"""Exits in a row before it was ever ready; then the process is given up."""
LAST_PATIENCE = 5.0
"""Seconds between the hurry signal and SIGKILL."""
CANCEL_EVERY = 0.5
"""Seconds until a readiness check that still runs is cancelled again."""
GUARD = Path(__file__).with_name("guard.py")


class _Unit:
    """A process with all its restarts."""

    def __init__(self, spec: ProcessSpec, log: LogFile) -> None:
        self.spec = spec
        self.log = log
        self.process: Process | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the process was ready for the first time, or was given up."""
        self.ready.add_done_callback(lambda done: done.cancelled() or done.exception())  # `start` reports it
        self.stopping = False
        self.keeper: asyncio.Task[None] | None = None


class Supervisor:
    """Runs child processes. All of them end with this process, even if it is killed."""

    def __init__(self, terminal: Terminal, logs: Path, on_change: Callable[[], None] = lambda: None) -> None:
        self._terminal = terminal
        self._logs = logs
        self._on_change = on_change
        self._units: dict[str, _Unit] = {}
        self._hurry = asyncio.Event()
        self._guard: asyncio.subprocess.Process | None = None
        self._making_guard = asyncio.Lock()

    async def start(self, *specs: ProcessSpec) -> None:
        """Start these at the same time and return once all are ready. Raises `CannotStart` if one cannot start."""
        await self._start_guard()
        units = [_Unit(spec, LogFile(self._logs / f"{spec.name}.log")) for spec in specs]
        for unit in units:
            self._units[unit.spec.name] = unit
            unit.keeper = asyncio.create_task(self._keep(unit), name=f"keep {unit.spec.name}")
        await asyncio.gather(*(unit.ready for unit in units))

    def pids(self) -> dict[str, int]:
        """The name and pid of every running process."""
        return {
            name: unit.process.pid for name, unit in self._units.items() if unit.process and unit.process.is_running
        }

    def hurry(self) -> None:
        """Stop without waiting any longer."""
        self._hurry.set()

    async def stop(self) -> None:
        """Stop all processes, lowest stop order first. A process that does not stop in time is killed."""
        units = sorted(self._units.values(), key=lambda unit: unit.spec.stop_order)
        for unit in units:
            unit.stopping = True  # no restarts from here on
        for _, together in groupby(units, key=lambda unit: unit.spec.stop_order):
            await asyncio.gather(*(self._stop(unit) for unit in together))
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()
            await self._guard.wait()

    async def _keep(self, unit: _Unit) -> None:
        try:
            await self._live(unit)
        except asyncio.CancelledError:
            if not unit.ready.done():
                unit.ready.cancel()
            raise
        except Exception as error:  # nothing awaits this task, so report the error here
            if unit.ready.done():
                self._terminal.event(unit.spec.name, f"given up: {error}", bad=True)
            else:
                unit.ready.set_exception(error)
        finally:
            unit.log.close()

    async def _live(self, unit: _Unit) -> None:
        spec, failures = unit.spec, 0
        while not unit.stopping:
            started = time.monotonic()
            if spec.before_start is not None:
                await spec.before_start()
            process = await self._launch(unit)
            if await self._becomes_ready(unit, process):
                taken = time.monotonic() - started
                self._terminal.event(spec.name, f"ready in {taken:.1f} s (pid {process.pid})")
                if not unit.ready.done():
                    unit.ready.set_result(None)
            code = await process.exited
            await self._bury(process)
            if unit.stopping:
                return
            failures = 0 if time.monotonic() - started >= HEALTHY else failures + 1
            if failures >= ATTEMPTS and not unit.ready.done():
                raise CannotStart(self._never_ready(process, code))
            delay = min(LONGEST_DELAY, FIRST_DELAY * 2 ** max(0, failures - 1))
            self._terminal.event(spec.name, f"{how_it_ended(code)}, starting again in {delay:g} s", bad=True)
            await asyncio.sleep(delay)

    async def _launch(self, unit: _Unit) -> Process:
        try:
            process = await Process.start(unit.spec, self._terminal, unit.log)
        except OSError as error:
            raise CannotStart(f"{unit.spec.name} cannot be started: {error}") from None
        self._tell_guard(f"+ {process.pid} {int(unit.spec.hurry_signal)}")
        unit.process = process
        if unit.stopping:
            process.kill_group()
        self._on_change()
        return process

    async def _becomes_ready(self, unit: _Unit, process: Process) -> bool:
        """Whether the process became ready. One that takes too long is killed."""
        check = asyncio.ensure_future(unit.spec.ready(process))
        try:
            await asyncio.wait(
                {check, process.exited}, timeout=unit.spec.ready_timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if check.done() and process.is_running:
                check.result()
                return True
            if process.is_running:
                process.kill_group()
                await process.exited
                sentence = f"not ready within {unit.spec.ready_timeout:g} s"
                if not unit.ready.done():
                    raise CannotStart(f"{unit.spec.name}: {sentence}.{_quoted(process)}")
                self._terminal.event(unit.spec.name, sentence, bad=True)
            return False
        finally:
            # Cancel until it ends: `asyncio.wait_for` of Python 3.11 loses a cancellation that comes at the moment when
            # the awaited task ends, as it does when the process ends.
            while not check.done():
                check.cancel()
                await asyncio.wait([check], timeout=CANCEL_EVERY)
            if not check.cancelled():
                check.exception()  # otherwise asyncio logs it

    async def _bury(self, process: Process) -> None:
        process.kill_group()
        self._tell_guard(f"- {process.pid}")
        await process.finish()

    async def _stop(self, unit: _Unit) -> None:
        process = unit.process
        if process is not None and process.is_running:
            process.stopping = True
            if not self._hurry.is_set():
                process.signal(unit.spec.stop_signal)
                await self._ended(process, unit.spec.stop_timeout)
            if process.is_running:
                if not self._hurry.is_set():
                    took = f"{unit.spec.stop_timeout:g} s"
                    self._terminal.event(unit.spec.name, f"did not stop within {took}, killing it", bad=True)
                process.signal(unit.spec.hurry_signal)
                await asyncio.wait([process.exited], timeout=LAST_PATIENCE)
                process.kill_group()
                await process.exited
            await self._bury(process)
            self._terminal.event(unit.spec.name, "stopped")
        if unit.keeper is not None:
            unit.keeper.cancel()  # it may be waiting before a restart
            await asyncio.wait([unit.keeper])

    async def _ended(self, process: Process, patience: float) -> None:
        hurried = asyncio.create_task(self._hurry.wait())
        await asyncio.wait({process.exited, hurried}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()

    async def _start_guard(self) -> None:
        async with self._making_guard:
            if self._guard is None:
                self._guard = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", str(GUARD)),
                    stdin=asyncio.subprocess.PIPE,
                    start_new_session=True,
                    env={"LANG": os.environ.get("LANG", "C")},
                )

    def _tell_guard(self, line: str) -> None:
        if self._guard is not None and self._guard.stdin is not None and not self._guard.stdin.is_closing():
            self._guard.stdin.write(line.encode() + b"\n")

    @staticmethod
    def _never_ready(process: Process, code: int) -> str:
        name = process.spec.name
        return (
            f"{name} ended {ATTEMPTS} times before it was ready, last with {how_it_ended(code)}.{_quoted(process)}\n"
            f"Fix that, then start again. Its whole output is in logs/{name}.log of the home."
        )


def _quoted(process: Process) -> str:
    lines = list(process.tail)[-12:]
    return " Its last lines:\n" + "\n".join(f"    {line}" for line in lines) if lines else " It wrote nothing."
