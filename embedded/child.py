"""Runs as a program between the supervisor and a server: ties its life to the supervisor's, then becomes the server.

A program of its own and no ``preexec_fn``, since Python code between fork and exec may hang in a process with threads.
Standard library only; started with ``python -I -S``, which takes some 15 ms. See prctl(2) and capabilities(7).

Arguments: the supervisor's pid, the signal to get when it dies, uid or -1, gid or -1, capability or -1, command…
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
SECBIT_NO_SETUID_FIXUP = 1 << 2
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
CAPABILITY_VERSION_3 = 0x20080522


def main(arguments: list[str]) -> None:
    """Set up what was asked for and exec; exits with 126 and a sentence if the system refuses."""
    parent, death_signal, uid, gid, capability = map(int, arguments[:5])
    command = arguments[5:]
    try:
        if uid >= 0:
            become(uid, gid, capability)
        # After the change of user, which clears it.
        if sys.platform == "linux":
            check(prctl(PR_SET_PDEATHSIG, death_signal, 0), "PR_SET_PDEATHSIG")
        if os.getppid() != parent:
            sys.exit(f"{command[0]}: not started, the process that wanted it is gone")
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error}\n")
        sys.exit(126)


def become(uid: int, gid: int, capability: int) -> None:
    """Turn from root into another user, keeping at most one capability across exec."""
    if capability >= 0:
        # Keeps the capabilities through setuid, and has access(2), which PostgreSQL asks about its own binary, honour
        # them: without this bit it counts only what the user may do without capabilities.
        check(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0), "PR_SET_SECUREBITS")
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    if capability >= 0:
        # Drops all others. Only what is both permitted and inheritable may be raised into the ambient set, which
        # survives exec.
        mask = 1 << capability
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        low_effective_permitted_inheritable_then_high = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        check(libc.capset(header, low_effective_permitted_inheritable_then_high), "capset")
        check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability), "PR_CAP_AMBIENT_RAISE")


def prctl(option: int, second: int, third: int) -> int:
    """prctl(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.prctl(
        ctypes.c_int(option), ctypes.c_ulong(second), ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
    return result


def check(result: int, what: str) -> None:
    """Raises `OSError` if a call into the C library failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
