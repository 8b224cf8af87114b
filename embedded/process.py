"""One child process: how it is started, what it writes, how it ended."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from embedded.terminal import LogFile, Terminal
from embedded.unprivileged import OtherUser

CHILD = Path(__file__).with_name("child.py")
LONGEST_LINE = 64 * 1024
"""Bytes after which a line without an end is broken."""


async def at_once(_process: "Process") -> None:
    """Ready as soon as it runs."""


@dataclass(frozen=True)
class ProcessSpec:
    """What to run and how to treat it. Times in seconds."""

    name: str
    argv: tuple[str, ...]
    """The first is an absolute path."""
    ready: Callable[["Process"], Awaitable[None]] = at_once
    """Returns once the process does its work; it is cancelled when the process ends before that."""
    env: Mapping[str, str] | None = None
    """The whole environment; that of this process if none is given."""
    cwd: Path | None = None
    before_start: Callable[[], Awaitable[None]] | None = None
    """Awaited before every start, the restarts as well."""
    ready_timeout: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    stop_order: int = 0
    """Lower ones are stopped first, equal ones together."""
    hurry_signal: signal.Signals = signal.SIGKILL
    """Sent when there is no time to stop it properly, and when the supervisor itself was killed."""
    group_dies_too: bool = True
    """Whether what it leaves of its process group is killed once it has ended."""
    user: OtherUser | None = None
    """Whom it runs as, if not as we do."""
    shown: Callable[[str], bool] = field(default=lambda _line: True)
    """Which of its lines are worth the terminal; all go to the log file."""
    stops_quietly: bool = False
    """Whether what it writes while it is being stopped goes to the log file only."""


class Process:
    """A started child in its own session, so that Ctrl-C in the terminal reaches only the supervisor."""

    def __init__(self, spec: ProcessSpec, child: asyncio.subprocess.Process, terminal: Terminal, log: LogFile) -> None:
        self.spec = spec
        self.pid = child.pid
        self.tail: deque[str] = deque(maxlen=200)
        self.exited: asyncio.Task[int] = asyncio.create_task(child.wait())
        """Ends with the exit code, negative for the signal that killed it."""
        self.stopping = False
        self._terminal = terminal
        self._log = log
        self._awaited: list[tuple[str, asyncio.Future[None]]] = []
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spec: ProcessSpec, terminal: Terminal, log: LogFile) -> Self:
        """Start it. Raises `OSError` if there is no such program."""
        user = spec.user
        ids = (user.uid, user.gid, user.capability) if user else (-1, -1, -1)
        lead = (sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(spec.hurry_signal)), *map(str, ids))
        # A pipe of our own: asyncio's would make waiting for the exit last until its children have closed it as well.
        read_end, write_end = os.pipe()
        try:
            child = await asyncio.create_subprocess_exec(
                *lead,
                *spec.argv,
                env=None if spec.env is None else dict(spec.env),
                cwd=spec.cwd,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=write_end,
                stderr=write_end,
                start_new_session=True,
            )
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        process = cls(spec, child, terminal, log)
        process._reading = asyncio.create_task(process._read(read_end))
        return process

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return not self.exited.done()

    def signal(self, number: signal.Signals) -> None:
        """Signal the process itself, if it still runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill it and everything that it started and that stayed in its process group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def wait_for_line(self, text: str) -> None:
        """Return once a line that contains ``text`` was written."""
        if any(text in line for line in self.tail):
            return
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((text, seen))
        await seen

    async def finish(self) -> None:
        """After the exit: take in what it wrote last."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1.0)  # longer only if something else keeps the pipe open
            self._reading.cancel()

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip()
        if not line:
            return
        self.tail.append(line)
        self._log.write(line)
        if self.spec.shown(line) and not (self.stopping and self.spec.stops_quietly):
            self._terminal.line(self.spec.name, line)
        for text, seen in self._awaited:
            if text in line and not seen.done():
                seen.set_result(None)

    async def _read(self, descriptor: int) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(descriptor, "rb", 0)
        )
        rest = b""
        try:
            while chunk := await stream.read(LONGEST_LINE):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self._take(line)
                if len(rest) > LONGEST_LINE:
                    self._take(rest)
                    rest = b""
        finally:
            self._take(rest)
            transport.close()


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
