"""Runs as a program beside the supervisor: ends every process group that it left behind when it was killed.

The death signal of `child.py` reaches the children only; this reaches their children as well, and works on macOS too.
It reads lines from a pipe: ``+ group signal`` when a group starts, ``- group`` when it has ended. The end of the
pipe means that the supervisor is gone, however it went. Standard library only.
"""

import os
import signal
import sys
import time

PATIENCE = 5.0
"""Seconds between a group's own signal and SIGKILL."""


def main() -> None:
    """Follow the pipe to its end, then clean up."""
    groups: dict[int, int] = {}
    for line in sys.stdin:
        match line.split():
            case ["+", group, number]:
                groups[int(group)] = int(number)
            case ["-", group]:
                groups.pop(int(group), None)
    for group, number in groups.items():
        send(group, number)
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and any(send(group, 0) for group in groups):
        time.sleep(0.05)
    for group in groups:
        send(group, signal.SIGKILL)


def send(group: int, number: int) -> bool:
    """Signal a process group; whether there still is one."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
