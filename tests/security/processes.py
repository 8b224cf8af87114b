"""The two APIs as processes of their own, started as an operator starts them, on real servers."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from configuration.home import CLONE
from embedded.ports import free_port

READY_SECONDS = 60.0


@dataclass(frozen=True)
class ApiProcess:
    """One API that is served by a process of its own."""

    url: str
    pid: int
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    @property
    def resident(self) -> int:
        """Bytes of memory that the process holds."""
        return int(psutil.Process(self.pid).memory_info().rss)


@asynccontextmanager
async def api_process(network: str, home: Path, level: str = "ERROR", **told: str) -> AsyncIterator[ApiProcess]:
    """Serve a network's API until the block ends. ``told`` are its variables without ``AIRLOCK_…_``."""
    home.mkdir(parents=True, exist_ok=True)
    port, prefix = free_port(), f"AIRLOCK_{network.upper()}_"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRLOCK_")}
    environment |= {"AIRLOCK_HOME": str(home), "PYTHONPATH": str(CLONE), "AIRLOCK_LOG_LEVEL": level}
    environment["AIRLOCK_LOG_FORMAT"] = "json"
    environment |= {prefix + name.upper(): value for name, value in (told | {"port": str(port)}).items()}
    log = home / f"{network}-api.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "api", network],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        await _ready(process, port, log)
        yield ApiProcess(f"http://127.0.0.1:{port}", process.pid, log)
    finally:
        process.terminate()
        try:
            await asyncio.to_thread(process.wait, 20)
        finally:
            process.kill()


async def _ready(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    until = time.monotonic() + READY_SECONDS
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        while True:
            assert process.poll() is None, f"the API ended:\n{log.read_text()}"
            assert time.monotonic() < until, f"the API was not ready in time:\n{log.read_text()}"
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
