"""Files that configure Airlock are read only if no other user of the machine may write them."""

import os
import stat
import sys
from pathlib import Path

_told: set[str] = set()


def who_may_write(path: Path) -> str | None:
    """Why other users may write the file, as the end of a sentence; None if only its owner, that is us or root, may.

    A link counts with its own directory and with that of its target. A directory above, such as ``/tmp``, may be open
    to all if it has the sticky bit: then others cannot replace what is not theirs.
    """
    for place in dict.fromkeys((path.parent.resolve() / path.name, path.resolve())):
        for each in (place, *place.parents):
            found = each.lstat()
            if found.st_uid not in (0, os.geteuid()):
                return f"{each} belongs to another user"
            if stat.S_ISLNK(found.st_mode) or not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                continue
            is_near = each in (place, place.parent)
            if is_near or not found.st_mode & stat.S_ISVTX:
                return f"other users may write {each}"
    return None


def is_trusted(path: Path) -> bool:
    """Whether the file exists and only we may write it. Otherwise it is to be ignored, which is said once."""
    try:
        why = who_may_write(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return False
    if why is not None and str(path) not in _told:
        _told.add(str(path))
        print(f"airlock: {path} is ignored, because {why}: chmod go-w, or chown it.", file=sys.stderr)
    return why is None
