"""A whole Airlock as a child process, in its own home, with a proxy in its link."""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import time
from collections import Counter
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
import psutil

from chaos.plan import PROCESSES
from chaos.proxy import Harm, Proxy
from configuration.home import CLONE
from embedded import probe
from embedded.ports import free_ports, variable
from embedded.process import CHILD

START_SECONDS = 180.0
STOP_SECONDS = 120.0
CADENCES = {
    "export-settings": {"every": 10},
    "export-results": {"every": 30},
    "system-monitoring": {"every": 30},
    "cache-maintenance": {"every": 60},
}
"""Shorter than the defaults, so that every schedule runs many times under faults."""
STARTED_AGAIN = re.compile(r"^(\S+) +\| .*, starting again in ")


class CannotRun(Exception):
    """The harness failed; this says nothing about Airlock."""


async def spawn(
    *command: str, environment: dict[str, str], log: Path, piped: bool = False
) -> asyncio.subprocess.Process:
    """Start a Python program of this clone with its output in ``log``. It gets SIGTERM if this process dies."""
    with log.open("ab") as file:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), str(int(signal.SIGTERM)), "-1", "-1", "-1"),
            *(sys.executable, "-P", "-m", *command),
            env=environment,
            cwd=log.parent,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE if piped else file,
            stderr=file,
            start_new_session=True,
        )


def environment_for(home: Path) -> dict[str, str]:
    """This process's environment without the variables of another Airlock."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AIRLOCK_", "CHAOS_"))}
    return kept | {"AIRLOCK_HOME": str(home), "PYTHONPATH": str(CLONE), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


def last_lines(path: Path, count: int = 15) -> str:
    """The last lines of a log, indented."""
    lines = path.read_text(errors="replace").splitlines()[-count:] if path.exists() else []
    return "\n".join("    " + line for line in lines)


class Airlock:
    """`airlock up` in ``directory``; a `Target` of faults.

    With ``harmed=False`` it has no proxy in its link, and the default cadences.
    """

    def __init__(self, directory: Path, *, harmed: bool = True) -> None:
        self.home = directory / "home"
        self.log = directory / "up.log"
        self._environment = environment_for(self.home)
        self._harmed = harmed
        self._process: asyncio.subprocess.Process | None = None
        self._proxy: Proxy | None = None

    @property
    def up(self) -> dict[str, Any]:
        """The present contents of `up.json`."""
        loaded: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return loaded

    async def start(self) -> None:
        """Start it and return once it accepts requests. Raises `CannotRun`."""
        ports = free_ports()
        told = {variable(name): str(port) for name, port in vars(ports).items() if port}
        if self._harmed:
            self._proxy = Proxy("127.0.0.1", ports.request)
            await self._proxy.start()
            told["AIRLOCK_RESPONSE_LINK_URL"] = self._proxy.url
            told["AIRLOCK_RESPONSE_CADENCES"] = json.dumps(CADENCES)
        self._process = await spawn("cli", "up", "--no-samples", environment=self._environment | told, log=self.log)
        until = time.monotonic() + START_SECONDS
        while not await self._accepts_requests():
            if self._process.returncode is not None:
                raise CannotRun(f"airlock up ended with {self._process.returncode}:\n{last_lines(self.log)}")
            if time.monotonic() > until:
                raise CannotRun(f"airlock up was not ready within {START_SECONDS:g} s:\n{last_lines(self.log)}")
            await asyncio.sleep(0.2)

    async def _accepts_requests(self) -> bool:
        if not (self.home / "up.json").exists():
            return False
        with contextlib.suppress(httpx.HTTPError, ValueError):
            async with self.caller() as http:
                return bool((await http.get("/v1/request-types")).json().get("request_types"))
        return False

    def caller(self) -> httpx.AsyncClient:
        """A client of the request API with the sample user's key."""
        up = self.up
        headers = {"Authorization": f"Bearer {up['api_key']}"}
        return httpx.AsyncClient(base_url=up["request_api"], headers=headers, timeout=20, trust_env=False)

    async def ended(self) -> int:
        """Wait until `up` ends by itself, which is an error; returns its exit code."""
        assert self._process is not None
        return await self._process.wait()

    def pid(self, name: str) -> int | None:
        with contextlib.suppress(OSError, ValueError, KeyError):
            return int(self.up["processes"][name])
        return None

    async def flush(self) -> None:
        await probe.exchange(Path(unquote(urlsplit(self.up["redis"]).path)), b"FLUSHALL\r\nQUIT\r\n")

    def harm(self, harm: Harm) -> AbstractContextManager[None]:
        assert self._proxy is not None, "only a started Airlock has a link"
        return self._proxy.harm(harm)

    def not_running(self) -> list[str]:
        """Names of processes that should run and do not."""
        return [name for name in PROCESSES if (pid := self.pid(name)) is None or not psutil.pid_exists(pid)]

    def restarts(self) -> Counter[str]:
        """Number of restarts of each process, by its terminal output."""
        lines = self.log.read_text(errors="replace").splitlines()
        return Counter(found[1] for line in lines if (found := STARTED_AGAIN.match(line)))

    async def verify(self) -> tuple[int, str]:
        """Run `airlock verify --json`; returns its exit code and output."""
        log = self.log.with_name("verify.log")
        process = await spawn("cli", "verify", "--json", environment=self._environment, log=log, piped=True)
        output, _ = await process.communicate()
        return process.returncode or 0, output.decode() or last_lines(log)

    async def stop(self) -> str:
        """Stop it in order; returns the problem, or an empty text."""
        if self._proxy is not None:
            await self._proxy.stop()
        process = self._process
        if process is None or process.returncode is not None:
            return ""
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_SECONDS):
                code = await process.wait()
        except TimeoutError:
            process.kill()  # its guard process stops the servers
            await process.wait()
            return f"airlock up did not stop within {STOP_SECONDS:g} s"
        _, left = await asyncio.to_thread(psutil.wait_procs, family, 10)
        if left:
            return f"airlock up left behind: {', '.join(str(member) for member in left)}"
        return f"airlock up ended with {code}" if code else ""
