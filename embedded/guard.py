"""A program that ends all process groups of a supervisor that was killed.

The death signal of `child.py` reaches only the children, and only on Linux; this also reaches their children. It reads
lines from a pipe: ``+ group signal`` when a group starts, ``- group`` when it has ended. The pipe closes when the
supervisor has ended for any reason. Standard library only.
"""

import os
import signal
import sys
import time

PATIENCE = 5.0
"""Seconds between a group's own signal and SIGKILL."""


def main() -> None:
    """Read the pipe to its end, then end the groups that are left."""
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
    """Signal a process group; returns whether it exists."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    main()
