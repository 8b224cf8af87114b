"""The home directory: all state of an `airlock up`, closed to other users. One `up` at a time has its lock."""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any, Self

from embedded.errors import CannotStart

VERSION = 1
"""Of the layout. It grows with changes that an older Airlock cannot read."""
LONGEST_SOCKETS = 75
"""Bytes. The path of a unix socket may have 103 bytes on macOS and 107 on Linux (unix(7)); ours add up to 24."""


class Home:
    """An open, locked home. Use it as a context manager; the lock also ends with the process."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.secrets = root / "secrets"
        self.keys = root / "keys"
        self.logs = root / "logs"
        self.up_file = root / "up.json"
        self.sockets = root / "sockets"
        """Directory of the unix sockets, while the home is open. If the home's path is too long for them, it is a
        directory below ``/tmp`` with mode 0700, to which ``sockets`` in the home is a link."""
        self._lock: int | None = None

    @classmethod
    def open(cls, root: Path) -> Self:
        """Create the home if it does not exist, and lock it.

        Raises `CannotStart` if it is a file, cannot be written, belongs to another user, was made by a newer Airlock or
        is locked.
        """
        home = cls(root)
        elsewhere = "Set AIRLOCK_HOME to a directory of your own."
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (FileExistsError, NotADirectoryError):
            raise CannotStart(f"{root} is a file, the home must be a directory. {elsewhere}") from None
        except OSError as error:
            raise CannotStart(f"The home {root} cannot be created: {error.strerror}. {elsewhere}") from None
        if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
            raise CannotStart(f"The home {root} cannot be written. {elsewhere}")
        found = root.stat()
        if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:  # sticky: a place for all, such as /tmp
            raise CannotStart(f"The home {root} is not yours alone, so other users could read it. {elsewhere}")
        try:
            home._take_lock()
            home._check_version()
            home._close_to_others()
            for directory in (home.secrets, home.keys, home.logs):
                directory.mkdir(mode=0o700, exist_ok=True)
            home._make_sockets()
        except OSError as error:
            home.close()
            raise CannotStart(f"The home {root} cannot be used: {error}. {elsewhere}") from None
        except CannotStart:
            home.close()
            raise
        return home

    def _take_lock(self) -> None:
        self._lock = os.open(self.root / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _parsed(os.pread(self._lock, 4096, 0))
            os.close(self._lock)
            self._lock = None
            pid, address = holder.get("pid", "unknown"), holder.get("request_api")
            raise CannotStart(
                f"Another airlock up (pid {pid}{f', {address}' if address else ''}) runs in {self.root}."
                " Stop it, or set AIRLOCK_HOME to another directory and use --free-ports."
            ) from None
        self.say_who_holds_it()

    def say_who_holds_it(self, request_api: str | None = None) -> None:
        """Write our pid and address to the lock file, for the message of a second `up`."""
        assert self._lock is not None, "only the holder of the lock writes it"
        content = json.dumps({"pid": os.getpid(), "request_api": request_api}).encode()
        os.pwrite(self._lock, content, 0)
        os.ftruncate(self._lock, len(content))

    def _check_version(self) -> None:
        path = self.root / "version"
        try:
            text = path.read_text().strip()
        except FileNotFoundError:
            write_private(path, f"{VERSION}\n")
            return
        if not text.isdecimal():
            raise CannotStart(
                f"{path} holds {text[:20]!r}, so this is not a home of Airlock: set AIRLOCK_HOME to another directory."
            )
        if int(text) > VERSION:
            raise CannotStart(
                f"The home {self.root} was made by a newer Airlock (layout {text}, this one knows {VERSION})."
                " Update this clone, or set AIRLOCK_HOME to another directory."
            )

    def _close_to_others(self) -> None:
        """Take other users' rights from what an older Airlock made. PostgreSQL checks those of its own directory."""
        self.root.chmod(0o700)
        parts = [self.root / name for name in ("secrets", "keys", "logs", "temporal", "redis")]
        for place in (*self.root.glob("*.*"), *parts, *(each for part in parts for each in part.rglob("*"))):
            if place.exists() and not place.is_symlink() and (mode := stat.S_IMODE(place.stat().st_mode)) & 0o077:
                place.chmod(mode & 0o700)

    def _make_sockets(self) -> None:
        inside = self.root.resolve() / "sockets"
        self._remove_sockets()
        if len(os.fsencode(inside)) <= LONGEST_SOCKETS:
            inside.mkdir(mode=0o700)
            self.sockets = inside
        else:
            temporary = tempfile.gettempdir()
            short = len(os.fsencode(temporary)) <= LONGEST_SOCKETS - len("/airlock-12345678")
            self.sockets = Path(tempfile.mkdtemp(prefix="airlock-", dir=temporary if short else "/tmp"))  # noqa: S108
            inside.symlink_to(self.sockets)

    def _remove_sockets(self) -> None:
        """Remove the sockets, also those that a killed `up` left."""
        inside = self.root.resolve() / "sockets"
        if inside.is_symlink():
            target = inside.readlink()
            inside.unlink()
            if target.name.startswith("airlock-"):
                shutil.rmtree(target, ignore_errors=True)
        else:
            shutil.rmtree(inside, ignore_errors=True)

    def take_stale_up_file(self) -> dict[str, Any]:
        """Delete the `up.json` of a killed `up` and return its content; empty if there was none."""
        try:
            content = self.up_file.read_bytes()
        except FileNotFoundError:
            return {}
        self.up_file.unlink()
        return _parsed(content)

    def write_up_file(self, content: dict[str, Any]) -> None:
        """Replace `up.json` atomically, readable only by its owner."""
        write_private(self.up_file, json.dumps(content, indent=2) + "\n")

    def remove_up_file(self) -> None:
        """Delete `up.json` if it exists."""
        self.up_file.unlink(missing_ok=True)

    def secret(self, name: str) -> str:
        """A password that is created once and kept in ``secrets/``: 32 characters that need no quoting in a URL."""
        path = self.secrets / name
        with contextlib.suppress(FileNotFoundError):
            if kept := path.read_text().strip():
                return kept
        made = secrets.token_urlsafe(24)
        write_private(path, made + "\n")
        return made

    def close(self) -> None:
        """Remove the sockets and release the lock."""
        if self._lock is not None:
            self._remove_sockets()
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def write_private(path: Path, content: str) -> None:
    """Replace a file atomically, with mode 0600 and fsync."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        loaded = json.loads(content)
    except ValueError:
        return {}
    return loaded if isinstance(loaded, dict) else {}
