"""The output of `airlock up`: lines with the name of their process, and log files of bounded size."""

import contextlib
import os
import sys
from pathlib import Path
from typing import TextIO

from models.printable import printable

COLOURS = ("36", "33", "35", "32", "34", "96", "93", "95")
RED, BOLD = "31", "1"


class Terminal:
    """Writes lines that begin with a name, in colour on a terminal unless `NO_COLOR` is set (https://no-color.org)."""

    def __init__(self, stream: TextIO | None = None, width: int = 15) -> None:
        self._stream = stream or sys.stdout
        self._width = width
        self._names: dict[str, str] = {}
        self.colour = self._stream.isatty() and not os.environ.get("NO_COLOR")

    def line(self, name: str, text: str) -> None:
        """Print a line that a process wrote. What would control the terminal is escaped."""
        self._put(name, printable(text))

    def event(self, name: str, text: str, *, bad: bool = False) -> None:
        """Print a line of ours about a process."""
        self._put(name, self._painted(printable(text), RED if bad else BOLD))

    def say(self, text: str, *, bad: bool = False) -> None:
        """Print lines of ours."""
        for line in map(printable, text.split("\n")):
            self._write(self._painted(line, RED) if bad else line)

    def _put(self, name: str, text: str) -> None:
        colour = self._names.setdefault(name, COLOURS[len(self._names) % len(COLOURS)])
        self._write(f"{self._painted(name.ljust(self._width), colour)} | {text}")

    def _painted(self, text: str, colour: str) -> str:
        return f"\033[{colour}m{text}\033[0m" if self.colour else text

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):  # the terminal may be gone; the log files stay
            self._stream.write(text + "\n")
            self._stream.flush()


class LogFile:
    """A log file. When it is full it is renamed to ``….1``, and a new one begins."""

    def __init__(self, path: Path, limit: int = 5 * 1024 * 1024) -> None:
        self._path = path
        self._limit = limit  # bytes
        self._file = self._open()

    def _open(self) -> TextIO:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(descriptor, "a", encoding="utf-8", buffering=1, errors="replace")

    def write(self, line: str) -> None:
        """Append a line, escaped as on the terminal. On a full disk the line is lost, and the process goes on."""
        with contextlib.suppress(OSError):
            if self._file.tell() > self._limit:
                self._file.close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))
                self._file = self._open()
            self._file.write(printable(line) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()
