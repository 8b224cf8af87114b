"""A whole Airlock, started as a user starts it, seen from outside only: its APIs, its `up.json`, its processes."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import psutil

from configuration.home import CLONE

START_SECONDS = 120.0


async def eventually(
    check: Callable[[], Awaitable[bool]], what: str | Callable[[], str], patience: float = 60.0
) -> None:
    """Wait for a condition; fails the test when it does not come true, and says ``what`` was waited for."""
    until = time.monotonic() + patience
    while not await check():
        assert time.monotonic() < until, f"not within {patience:g} s: {what() if callable(what) else what}"
        await asyncio.sleep(0.1)


class RunningAirlock:
    """`airlock up` in a home of its own, on free ports."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self._environment = {k: v for k, v in os.environ.items() if not k.startswith("AIRLOCK_")} | environment
        self._environment |= {"AIRLOCK_HOME": str(home), "NO_COLOR": "1", "PYTHONPATH": str(CLONE)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def up(self) -> dict[str, Any]:
        """What `up.json` says now: a process that was started again has another pid."""
        loaded: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return loaded

    @property
    def said(self) -> str:
        """What it wrote to the terminal."""
        return self.home.with_suffix(".log").read_text()

    async def start(self) -> None:
        """Start it and wait until it says that all is ready."""
        with self.home.with_suffix(".log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli", "up", "--free-ports"],
                env=self._environment,
                cwd=CLONE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        until = time.monotonic() + START_SECONDS
        while not (self.home / "up.json").exists():
            assert self._process.poll() is None, f"`airlock up` ended with {self._process.returncode}:\n{self.said}"
            assert time.monotonic() < until, f"`airlock up` was not ready in time:\n{self.said}"
            await asyncio.sleep(0.1)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; gives its exit code. Fails when a process is left behind."""
        assert self._process is not None
        family = psutil.Process(self._process.pid).children(recursive=True)
        self._process.send_signal(number)
        code = await asyncio.to_thread(self._process.wait, 90)
        _, left = psutil.wait_procs(family, timeout=5)
        assert not left, f"left behind: {left}"
        self._process = None
        return code

    async def end(self) -> None:
        """Stop it if it still runs, whatever the test did to it."""
        if self._process is not None:
            for pid in self.up["processes"].values() if (self.home / "up.json").exists() else ():
                if psutil.pid_exists(pid):
                    os.kill(pid, signal.SIGCONT)
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.to_thread(self._process.wait, 60)
            finally:
                self._process.kill()

    def signal(self, name: str, number: signal.Signals) -> int:
        """Signal one of its processes; gives the pid."""
        pid: int = self.up["processes"][name]
        os.kill(pid, number)
        return pid

    async def kill(self, name: str) -> None:
        """SIGKILL one of its processes and wait until it was started again."""
        pid = self.signal(name, signal.SIGKILL)

        async def another() -> bool:
            return bool(self.up["processes"].get(name, pid) != pid)

        await eventually(another, f"{name} is started again")

    def caller(self, network: str = "request") -> httpx.AsyncClient:
        """A client with the sample user's key or, for the response network, the operator's."""
        up = self.up
        key = up["api_key"] if network == "request" else up["operator_key"]
        return httpx.AsyncClient(
            base_url=up[f"{network}_api"],
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(90),
            limits=httpx.Limits(max_connections=64),
            trust_env=False,
        )

    def temporal(self, *arguments: str, namespace: str = "response") -> Any:
        """Run the `temporal` command against it; gives its JSON."""
        program = Path(sys.executable).with_name("temporal")
        answer = subprocess.run(
            [program, *arguments, "--address", self.up["temporal"], "-n", namespace, "-o", "json"],
            capture_output=True,
            check=True,
            timeout=30,
        )
        return json.loads(answer.stdout or b"null")

    def airlock(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the `airlock` command line against it."""
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            env=self._environment,
            cwd=CLONE,
            capture_output=True,
            text=True,
            timeout=60,
        )


async def submit(http: httpx.AsyncClient, *requests: dict[str, Any], key: str | None = None) -> list[str]:
    """Submit requests; an answer that leaves it open whether they were accepted is asked again with the same key."""
    headers = {"Idempotency-Key": key or os.urandom(12).hex()}
    until = time.monotonic() + 90
    while True:
        try:
            answer = await http.post("/v1/requests", json=list(requests), headers=headers)
            if answer.status_code == 202:
                ids: list[str] = answer.json()["ids"]
                return ids
            assert answer.status_code >= 500, f"refused: {answer.status_code} {answer.text}"
            assert answer.headers["content-type"] == "application/problem+json", answer.text
        except httpx.TransportError:
            pass
        assert time.monotonic() < until, "could not submit within 90 s"
        await asyncio.sleep(0.2)


async def result(http: httpx.AsyncClient, request_id: str, patience: float = 120.0) -> dict[str, Any]:
    """The result of a request, however long it takes within reason and whatever dies meanwhile."""
    until = time.monotonic() + patience
    while True:
        try:
            answer = await http.get(f"/v1/requests/{request_id}/result", params={"wait": 10})
            if answer.status_code == 200:
                loaded: dict[str, Any] = answer.json()
                return loaded
            assert answer.status_code in (202, 500, 502, 503), f"{answer.status_code} {answer.text}"
        except httpx.TransportError:
            await asyncio.sleep(0.2)
        assert time.monotonic() < until, f"no result for {request_id} within {patience:g} s"
