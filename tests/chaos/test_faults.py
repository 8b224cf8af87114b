"""Faults done to processes of the test's own."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager

import psutil
import pytest

from chaos.faults import Done, carry_out
from chaos.plan import Fault, FaultKind
from chaos.proxy import Harm, Refuse

PARENT = """
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep(600)
"""


class Dummy:
    """A target with one process, which has a child."""

    def __init__(self) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.child = 0
        self.flushed = 0
        self.harms: list[Harm] = []

    async def start(self) -> int:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, stdout=asyncio.subprocess.PIPE, start_new_session=True
        )
        assert self.process.stdout is not None
        self.child = int(await self.process.stdout.readline())
        return self.process.pid

    def stop(self) -> None:
        for pid in (self.process.pid if self.process else 0, self.child):
            if pid and psutil.pid_exists(pid):
                psutil.Process(pid).kill()

    def pid(self, name: str) -> int | None:
        return self.process.pid if name == "it" and self.process else None

    async def flush(self) -> None:
        self.flushed += 1

    def harm(self, harm: Harm) -> AbstractContextManager[None]:
        @contextlib.contextmanager
        def noted():  # type: ignore[no-untyped-def]
            self.harms.append(harm)
            yield

        return noted()


@pytest.fixture
async def target() -> AsyncIterator[Dummy]:
    made = Dummy()
    await made.start()
    yield made
    made.stop()


def status(pid: int) -> str:
    return str(psutil.Process(pid).status())


async def until(state: str, *pids: int) -> None:
    async with asyncio.timeout(20):
        while any(status(pid) != state for pid in pids):  # noqa: ASYNC110, nothing tells us
            await asyncio.sleep(0.01)


async def do(target: Dummy, *plan: Fault) -> list[Done]:
    done: list[Done] = []
    await carry_out(plan, target, lambda _: None, done.append)
    return done


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (Fault(0, FaultKind.KILL, "it"), signal.SIGKILL),
        (Fault(0, FaultKind.RESTART, "it", parameters={"signal": "SIGINT"}), signal.SIGINT),
    ],
    ids=str,
)
async def test_a_process_gets_the_signal(target: Dummy, fault: Fault, number: signal.Signals) -> None:
    before = time.time()
    (done,) = await do(target, fault)
    assert target.process is not None
    assert await target.process.wait() in (-number, 1)
    assert before <= done.began <= done.ended
    assert not done.problem


async def test_a_stopped_process_and_its_children_stand_still_and_go_on(target: Dummy) -> None:
    assert target.process is not None
    both = target.process.pid, target.child
    doing = asyncio.create_task(do(target, Fault(0, FaultKind.STOP, "it", 1.0)))
    await until(psutil.STATUS_STOPPED, *both)
    (done,) = await doing
    await until(psutil.STATUS_SLEEPING, *both)
    assert done.ended - done.began >= 1.0


async def test_who_gives_up_half_way_leaves_nothing_stopped(target: Dummy) -> None:
    assert target.process is not None
    both = target.process.pid, target.child
    doing = asyncio.create_task(do(target, Fault(0, FaultKind.STOP, "it", 600)))
    await until(psutil.STATUS_STOPPED, *both)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await until(psutil.STATUS_SLEEPING, *both)


async def test_a_process_is_looked_up_anew_each_time(target: Dummy) -> None:
    first = target.pid("it")
    await do(target, Fault(0, FaultKind.KILL, "it"))
    target.stop()
    await target.start()
    assert target.pid("it") != first
    (done,) = await do(target, Fault(0, FaultKind.KILL, "it"))
    assert not done.problem
    assert target.process is not None
    assert await target.process.wait() == -signal.SIGKILL


async def test_what_is_not_there_is_said_and_the_others_are_done(
    target: Dummy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chaos.faults.PATIENCE", 0.2)
    done = await do(target, Fault(0, FaultKind.KILL, "nobody"), Fault(0.1, FaultKind.FLUSH, "redis"))
    assert {each.fault.kind: bool(each.problem) for each in done} == {FaultKind.KILL: True, FaultKind.FLUSH: False}
    assert target.flushed == 1


async def test_a_fault_of_the_link_lasts_as_long_as_it_should(target: Dummy) -> None:
    (done,) = await do(target, Fault(0.1, FaultKind.CUT, "link", 0.3, {"seed": 1}))
    assert [type(harm) for harm in target.harms] == [Refuse]
    assert done.ended - done.began >= 0.3
