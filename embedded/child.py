"""A program that the supervisor starts: it asks for a signal when the supervisor dies, then becomes the server by exec.

It is not a ``preexec_fn``, because Python code between fork and exec may hang in a process with threads. It uses only
the standard library and is started with ``python -I -S``, which takes some 15 ms. See prctl(2) and capabilities(7).

Arguments: the supervisor's pid, the signal for its death, uid or -1, gid or -1, capability or -1, command…
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
    """Change the user, set the death signal and exec. Exits with 126 and a sentence if the system refuses."""
    parent, death_signal, uid, gid, capability = map(int, arguments[:5])
    command = arguments[5:]
    os.umask(0o077)  # what the server writes is for its own user
    try:
        if uid >= 0:
            become(uid, gid, capability)
        # Set the death signal after the change of user, which clears it.
        if sys.platform == "linux":
            check(prctl(PR_SET_PDEATHSIG, death_signal, 0), "PR_SET_PDEATHSIG")
        if os.getppid() != parent:
            sys.exit(f"{command[0]}: not started, the supervisor has ended")
        os.execv(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]} could not be started: {error}\n")
        sys.exit(126)


def become(uid: int, gid: int, capability: int) -> None:
    """Change from root to another user, with at most one capability after exec."""
    if capability >= 0:
        # This bit keeps the capabilities through setuid, and makes access(2) honour them, which PostgreSQL calls.
        check(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0), "PR_SET_SECUREBITS")
    os.setgroups([gid])
    os.setgid(gid)
    os.setuid(uid)
    if capability >= 0:
        # Drop all others. Only a permitted and inheritable capability may enter the ambient set, which survives exec.
        mask = 1 << capability
        header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
        low_effective_permitted_inheritable_then_high = (ctypes.c_uint32 * 6)(mask, mask, mask, 0, 0, 0)
        libc = ctypes.CDLL(None, use_errno=True)
        check(libc.capset(header, low_effective_permitted_inheritable_then_high), "capset")
        check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability), "PR_CAP_AMBIENT_RAISE")


def prctl(option: int, second: int, third: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.prctl(
        ctypes.c_int(option), ctypes.c_ulong(second), ctypes.c_ulong(third), ctypes.c_ulong(0), ctypes.c_ulong(0)
    )
    return result


def check(result: int, what: str) -> None:
    """Raise `OSError` if a call into the C library failed."""
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


if __name__ == "__main__":
    main(sys.argv[1:])
