"""Carries out a plan: injects each fault at its time into the target, and records the real times."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import psutil

from chaos.plan import Fault, FaultKind
from chaos.proxy import Corrupt, Double, Harm, Refuse, Replay, Slow, Truncate
from models.errors import describe

PATIENCE = 15.0
"""Seconds to wait for a process that is being restarted."""


class Target(Protocol):
    """A running system into which faults are injected."""

    def pid(self, name: str) -> int | None:
        """The present pid of the process of this name; None while there is none."""

    async def flush(self) -> None:
        """Empty the cache. Raises `OSError` or `TimeoutError` if it does not answer."""

    def harm(self, harm: Harm) -> AbstractContextManager[None]:
        """Apply a harm to the link for the block."""


@dataclass(frozen=True)
class Done:
    """An injected fault. Unix times, seconds."""

    fault: Fault
    began: float
    ended: float
    problem: str = ""
    """Why it could not be injected."""

    def as_json(self) -> dict[str, Any]:
        """A line of the faults' log."""
        return self.fault.as_json() | {"began": self.began, "ended": self.ended, "problem": self.problem}


class NotThere(Exception):
    """The target of a fault does not exist."""


async def carry_out(
    plan: Iterable[Fault], target: Target, begun: Callable[[Fault], None], done: Callable[[Done], None]
) -> None:
    """Inject every fault at its time from now, whatever the others take. If cancelled, it ends those in progress."""
    start = time.monotonic()

    async def one(fault: Fault) -> None:
        await asyncio.sleep(max(0.0, start + fault.at - time.monotonic()))
        begun(fault)
        began, problem = time.time(), ""
        try:
            began = await _do(fault, target)
        except (NotThere, OSError, TimeoutError, psutil.Error) as error:
            problem = describe(error)
        finally:
            done(Done(fault, began, time.time(), problem))

    async with asyncio.TaskGroup() as group:
        for fault in plan:
            group.create_task(one(fault))


async def _do(fault: Fault, target: Target) -> float:
    """Inject it and wait for its end; returns when it began."""
    match fault.kind:
        case FaultKind.KILL:
            return _signal(await _process(target, fault.target), signal.SIGKILL)
        case FaultKind.RESTART:
            return _signal(await _process(target, fault.target), signal.Signals[fault.parameters["signal"]])
        case FaultKind.FLUSH:
            began = time.time()
            async with asyncio.timeout(PATIENCE):
                await target.flush()
            return began
        case FaultKind.STOP:
            async with _stopped(await _process(target, fault.target)):
                began = time.time()
                await asyncio.sleep(fault.seconds)
        case _:
            with target.harm(_harm(fault)):
                began = time.time()
                await asyncio.sleep(fault.seconds)
    return began


def _harm(fault: Fault) -> Harm:
    said = fault.parameters
    match fault.kind:
        case FaultKind.CUT:
            return Refuse()
        case FaultKind.SLOW:
            return Slow(said["latency"], said["bytes_per_second"])
        case FaultKind.CORRUPT:
            return Corrupt(said["direction"], said["share"], said["seed"])
        case FaultKind.TRUNCATE:
            return Truncate(said["direction"], said["share"], said["seed"])
        case FaultKind.DUPLICATE if said["direction"] == "to-server":
            return Replay(said["share"], said["seed"])
        case FaultKind.DUPLICATE:
            return Double(said["direction"], said["share"], said["seed"])
    raise AssertionError(f"{fault.kind} is no fault of the link")


async def _process(target: Target, name: str) -> psutil.Process:
    until = time.monotonic() + PATIENCE
    while True:
        pid = target.pid(name)
        with contextlib.suppress(psutil.Error):
            if pid is not None and (process := psutil.Process(pid)).status() != psutil.STATUS_ZOMBIE:
                return process
        if time.monotonic() > until:
            raise NotThere(f"no {name} ran for {PATIENCE:g} s")
        await asyncio.sleep(0.05)


def _signal(process: psutil.Process, number: signal.Signals) -> float:
    process.send_signal(number)
    return time.time()


@asynccontextmanager
async def _stopped(process: psutil.Process) -> AsyncIterator[None]:
    """Suspend the process, then its children, for the block; in this order, so that it starts no more of them."""
    process.suspend()
    family = [process]
    try:
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.suspend()
                family.append(child)
        yield
    finally:
        for member in reversed(family):
            with contextlib.suppress(psutil.Error):  # it was killed in the meantime
                member.resume()
