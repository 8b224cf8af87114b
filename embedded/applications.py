"""Airlock's own processes under `airlock up`: an API and a worker for each network, with their environments."""

import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from configuration.redis_url import redis_database
from embedded import probe
from embedded.databases import Databases
from embedded.errors import CannotStart
from embedded.ports import Ports
from embedded.process import Process, ProcessSpec

PREFIXES = {"request": "AIRLOCK_REQUEST_", "response": "AIRLOCK_RESPONSE_"}
REDIS_DATABASES = {"request": 0, "response": 1}
READER = "sample"
"""Name of the data source that the sample request types read."""
DRAIN = 30.0
"""Seconds within which a stopping worker may finish its work."""


@dataclass(frozen=True)
class Surroundings:
    """The addresses and directories that Airlock's processes need."""

    clone: Path
    home: Path
    ports: Ports
    databases: Databases
    redis: str
    """URL of the Redis server, without a database number."""
    environment: Mapping[str, str]
    """The user's own variables."""

    @property
    def request_api(self) -> str:
        """Base URL of the request network's API."""
        return f"http://127.0.0.1:{self.ports.request}"

    @property
    def response_api(self) -> str:
        """Base URL of the response network's API."""
        return f"http://127.0.0.1:{self.ports.response}"

    @property
    def sources(self) -> dict[str, str]:
        """The response network's data sources: the user's own and the sample."""
        text = self.environment.get("AIRLOCK_RESPONSE_SOURCES") or "{}"
        try:
            own = json.loads(text)
        except ValueError:
            own = None
        if not isinstance(own, dict):
            raise CannotStart('AIRLOCK_RESPONSE_SOURCES must be a JSON object such as {"name": "postgresql://…"}.')
        return own | {READER: self.databases.reader}


def environment_of(network: str, where: Surroundings) -> dict[str, str]:
    """The environment of one network's processes: the user's, without the other network's variables."""
    others = tuple(prefix for name, prefix in PREFIXES.items() if name != network)
    prefix = PREFIXES[network]
    kept = {name: value for name, value in where.environment.items() if not name.startswith(others)}
    told = {
        "DATABASE_URL": getattr(where.databases, network),
        "REDIS_URL": redis_database(where.redis, REDIS_DATABASES[network]),
        "TEMPORAL_ADDRESS": f"127.0.0.1:{where.ports.temporal}",
        "TEMPORAL_NAMESPACE": network,
        "HOST": "127.0.0.1",
        "PORT": str(getattr(where.ports, network)),
        "KEYS": str(where.home / "keys" / network),
    }
    if network == "request":
        told["CALLBACK_PRIVATE_ADDRESSES"] = kept.get(f"{prefix}CALLBACK_PRIVATE_ADDRESSES", "true")
    else:
        told["LINK_URL"] = kept.get(f"{prefix}LINK_URL", where.request_api)  # a proxy, for instance
        told["SOURCES"] = json.dumps(where.sources)
    path = os.pathsep.join(filter(None, (str(where.clone), kept.get("PYTHONPATH"))))
    general = {"AIRLOCK_HOME": str(where.home), "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return kept | general | {prefix + name: value for name, value in told.items()}


def api_spec(network: str, where: Surroundings, stop_order: int = 0) -> ProcessSpec:
    """A network's API. It is ready when `/readyz` says so."""
    port = getattr(where.ports, network)

    async def ready(_process: Process) -> None:
        await probe.until_ready(port)

    return ProcessSpec(
        name=f"{network}-api",
        argv=(sys.executable, "-m", "cli", "api", network),
        ready=ready,
        env=environment_of(network, where),
        cwd=where.clone,
        stop_signal=signal.SIGTERM,
        stop_timeout=15.0,
        stop_order=stop_order,
    )


def worker_spec(network: str, where: Surroundings, stop_order: int = 0) -> ProcessSpec:
    """A network's worker. It is ready when it has logged `worker.ready`."""

    async def ready(process: Process) -> None:
        await process.wait_for_line("worker.ready")

    return ProcessSpec(
        name=f"{network}-worker",
        argv=(sys.executable, "-m", "cli", "worker", network),
        ready=ready,
        env=environment_of(network, where),
        cwd=where.clone,
        stop_signal=signal.SIGTERM,
        stop_timeout=DRAIN + 5.0,
        stop_order=stop_order,
    )
