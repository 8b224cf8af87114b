"""PostgreSQL refuses to run as root. As root it runs as `nobody`, who may need help to get at its files.

Below a directory that only root may enter (``/root``, or the home, which is 0700) `nobody` keeps the one capability
to read and search past permissions, rather than have the user's directories opened to everyone. See capabilities(7).
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
"""Lets `child.py` set the bit that makes capabilities outlast the change of user."""


@dataclass(frozen=True)
class OtherUser:
    """The user that a process runs as, and the capability that it keeps (-1: none)."""

    uid: int
    gid: int
    capability: int


def user_for(paths: Iterable[Path]) -> OtherUser | None:
    """Whom a server runs as that must reach ``paths``: none unless we are root.

    Raises `CannotStart` if there is no `nobody`, or if it cannot be enabled to reach them.
    """
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise CannotStart(
            "PostgreSQL does not run as root, and there is no user nobody to run it as. Run airlock as another user."
        ) from None
    closed = next((place for path in paths if (place := closed_directory(path, nobody)) is not None), None)
    if closed is None:
        return OtherUser(nobody.pw_uid, nobody.pw_gid, -1)
    # Containers usually withhold READ_SEARCH, yet grant the wider OVERRIDE.
    capability = next((each for each in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE) if may_keep(each)), None)
    if capability is None:
        raise CannotStart(
            f"PostgreSQL does not run as root but as nobody, who may not enter {closed}, and this system grants no"
            " capability for it. Run airlock as another user, or put both the clone and AIRLOCK_HOME"
            " below directories that everyone may enter."
        )
    return OtherUser(nobody.pw_uid, nobody.pw_gid, capability)


def closed_directory(path: Path, user: pwd.struct_passwd) -> Path | None:
    """The first directory on the way to ``path`` that the user may not enter."""
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
    """Whether this process has the capability and can pass it on to another user's process."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return False
    sets = dict(line.split(":\t", 1) for line in status.splitlines() if line.startswith("Cap"))
    effective, permitted, bounding = (int(sets.get(name, "0"), 16) for name in ("CapEff", "CapPrm", "CapBnd"))
    return bool(effective >> CAP_SETPCAP & permitted >> capability & bounding >> capability & 1)
