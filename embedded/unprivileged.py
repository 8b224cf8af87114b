"""PostgreSQL refuses to run as root. Root's `airlock up` therefore runs it as `nobody`.

`nobody` cannot enter directories such as ``/root`` or a home with mode 0700. It then keeps one capability that ignores
these permissions, so that the directories stay closed to everyone else. See capabilities(7).
"""

import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from embedded.errors import CannotStart

CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2
CAP_SETPCAP = 8
"""`child.py` needs it to keep a capability through the change of user."""


@dataclass(frozen=True)
class OtherUser:
    """The user of a process, and the capability that it keeps (-1: none)."""

    uid: int
    gid: int
    capability: int


def user_for(paths: Iterable[Path]) -> OtherUser | None:
    """The user of a server that must reach ``paths``; None unless we are root.

    Raises `CannotStart` if there is no user `nobody`, or no capability with which it reaches them.
    """
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart(
            "PostgreSQL does not run as root, and the user nobody does not exist. Run airlock as another user."
        ) from None
    closed = next((place for path in paths if (place := closed_directory(path, nobody)) is not None), None)
    if closed is None:
        return OtherUser(nobody.pw_uid, nobody.pw_gid, -1)
    # Containers usually grant the wider OVERRIDE, and not READ_SEARCH.
    capability = next((each for each in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if may_keep(each)), None)
    if capability is None:
        raise CannotStart(
            f"PostgreSQL does not run as root, and the user nobody may not enter {closed}. Run airlock as another user,"
            " or put the clone and AIRLOCK_HOME below directories that everyone may enter."
        )
    return OtherUser(nobody.pw_uid, nobody.pw_gid, capability)


def closed_directory(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The first directory above ``path`` that the user may not enter."""
    path = path.resolve()
    for directory in reversed(path.parents):
        found = directory.stat()
        if found.st_uid == user.pw_uid:
            needed = stat.S_IXUSR
        elif found.st_gid == user.pw_gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not found.st_mode & needed:
            return directory
    return None


def may_keep(capability: int) -> bool:
    """Whether this process has the capability and can pass it to a process of another user."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    sets = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Cap"))
    effective, permitted, bounding = (int(sets.get(name, "0"), 16) for name in ("CapEff", "CapPrm", "CapBnd"))
    return bool(effective >> CAP_SETPCAP & permitted >> capability & bounding >> capability & 1)
