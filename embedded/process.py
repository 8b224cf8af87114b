"""One child process: its start, its output and its end."""

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
"""Bytes after which a line without an end is split."""


async def at_once(_process: "Process") -> None:
    """Return at once: the process is ready as soon as it runs."""


@dataclass(frozen=True)
class ProcessSpec:
    """What to run, and how to start and stop it. Times are in seconds."""

    name: str
    argv: tuple[str, ...]
    """The first is an absolute path."""
    ready: Callable[["Process"], Awaitable[None]] = at_once
    """Returns once the process is ready; it is cancelled if the process ends before that."""
    env: Mapping[str, str] | None = None
    """The whole environment; by default that of this process."""
    cwd: Path | None = None
    before_start: Callable[[], Awaitable[None]] | None = None
    """Awaited before every start and restart."""
    ready_timeout: float = 60.0
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    stop_order: int = 0
    """Processes with a lower number are stopped first, those with the same number together."""
    hurry_signal: signal.Signals = signal.SIGKILL
    """Sent when a stop is in a hurry or takes too long, and when the supervisor was killed."""
    user: OtherUser | None = None
    """The user that it runs as; by default the current one."""
    shown: Callable[[str], bool] = field(default=lambda _line: True)
    """Which of its lines are shown in the terminal; the log file has all."""
    stops_quietly: bool = False
    """Whether its lines go only to the log file while it is stopped."""


class Process:
    """A running child in a session of its own, so that Ctrl-C reaches only the supervisor."""

    def __init__(self, spec: ProcessSpec, child: asyncio.subprocess.Process, terminal: Terminal, log: LogFile) -> None:
        self.spec = spec
        self.pid = child.pid
        self.tail: deque[str] = deque(maxlen=200)
        self.exited: asyncio.Task[int] = asyncio.create_task(child.wait())
        """Its result is the exit code, or the negative number of the signal that killed it."""
        self.stopping = False
        self._terminal = terminal
        self._log = log
        self._awaited: list[tuple[str, asyncio.Future[None]]] = []
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, spec: ProcessSpec, terminal: Terminal, log: LogFile) -> Self:
        """Start the process. Raises `OSError` if the program does not exist."""
        user = spec.user
        ids = (user.uid, user.gid, user.capability) if user else (-1, -1, -1)
        lead = (sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(spec.hurry_signal)), *map(str, ids))
        # With asyncio's own pipe, a wait for the exit would last until the process's children have closed it too.
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
        """Whether the process has not ended."""
        return not self.exited.done()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, if it runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_group(self) -> None:
        """Kill the process group: the process and its children."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def wait_for_line(self, text: str) -> None:
        """Return once the process has written a line with this text."""
        if any(text in line for line in self.tail):
            return
        seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited.append((text, seen))
        await seen

    async def finish(self) -> None:
        """After the exit, read the last output."""
        if self._reading is not None:
            await asyncio.wait([self._reading], timeout=1.0)  # a child may still hold the pipe open
            self._reading.cancel()

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip().expandtabs()
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
