"""Another user of the machine, as a small program: it tries everything that needs no right of its own.

Arguments: a user id, and a JSON file that names what there is: ``directory``, ``processes`` (pids), ``tcp`` and
``unix`` (where they listen). As root it lists the directory, so that it knows each name that it tries later; then it
becomes that user. It prints what it could do, as JSON: attempt → names.
"""

import contextlib
import encodings.idna  # noqa: F401, for sockets: later this user cannot read the library
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

REDIS = b"PING\r\n"
POSTGRES = b"\x00\x00\x00\x21\x00\x03\x00\x00user\x00airlock\x00database\x00postgres\x00\x00"
"""A startup message for user and database (PostgreSQL's manual, 54.7)."""

done: dict[str, list[str]] = {}


def attempt(name: str, action: Callable[[str], object], things: Iterable[object]) -> None:
    """Try it with each of these, and note the ones with which it succeeds."""
    for thing in things:
        with contextlib.suppress(OSError):
            action(str(thing))
            done.setdefault(name, []).append(str(thing))


def read(path: str) -> None:
    with open(path, "rb") as file:
        file.read(1)


def append(path: str) -> None:
    with open(path, "ab"):
        pass


def create(directory: str) -> None:
    with open(f"{directory}/neighbour", "xb"):
        pass


def connect(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(path)


def ask(port: int, message: bytes) -> bytes:
    """The first bytes of an answer; empty if there is none within half a second."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5) as there:
        there.sendall(message)
        return there.recv(4096)
    return b""


def main() -> None:
    """Become the user and try."""
    uid, target = int(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text())
    directory = Path(target["directory"])
    places = sorted({directory, *directory.rglob("*")})
    files = [place for place in places if place.is_file()]
    folders = [place for place in places if place.is_dir()]
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)

    attempt("read", read, files)
    attempt("write", append, files)
    attempt("list", os.listdir, folders)
    attempt("create", create, folders)
    attempt("rename", lambda path: os.rename(path, f"{path}.moved"), places)
    attempt("connect", connect, target["unix"])
    pids = target["processes"]
    attempt("look into", read, [f"/proc/{pid}/{name}" for pid in pids for name in ("environ", "maps", "mem")])
    attempt("look into", os.listdir, [f"/proc/{pid}/{name}/" for pid in pids for name in ("cwd", "root")])
    attempt("look into", os.readlink, [f"/proc/{pid}/fd/0" for pid in pids])
    attempt("signal", lambda pid: os.kill(int(pid), signal.SIGCONT), pids)
    attempt("shared memory", read, Path("/dev/shm").glob("PostgreSQL*"))
    for port in target["tcp"]:
        if b"PONG" in ask(port, REDIS):
            done.setdefault("redis", []).append(port)
        if ask(port, POSTGRES)[:1] in (b"R", b"E"):
            done.setdefault("postgres", []).append(port)
    print(json.dumps(done))


if __name__ == "__main__":
    main()
