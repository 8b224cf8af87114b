"""Duration of `airlock verify` for N requests and their results, and memory of both sides.

.venv/bin/python bench/verify_millions.py [--records 1000000] [--home DIRECTORY]

Fills both databases through the code that seals, receives and applies, without Temporal. Then it serves the request
network's API and runs the command. A directory given with --home is filled once and kept.
"""

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen
from uuid import UUID

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
from sqlalchemy.ext.asyncio import AsyncEngine
from uuid_utils.compat import uuid7

from configuration.home import CLONE
from embedded.databases import Databases, create_databases
from embedded.home import Home
from embedded.ports import free_port
from embedded.postgres import Postgres
from embedded.supervisor import Supervisor
from embedded.terminal import Terminal
from exchange.transfer.incoming import mark_applied
from exchange.transfer.outgoing import batch_after, mark_delivered
from exchange.transfer.receiving import Receiver
from exchange.transfer.sealing import Sealer
from exchange.wire.batch import to_wire
from exchange.wire.keys import LinkKeys, ensure_link_keys, load_link_keys
from exchange.wire.manifest import MAX_RECORDS
from execution.execution_store import FinishedResult, store_requests
from execution.execution_store import store_results as store_executed
from fulfilment.request_store import NewRequest, store_submitted
from fulfilment.result_store import ArrivedResult
from fulfilment.result_store import store_results as store_arrived
from models.requests import RequestRecord
from models.streams import BatchRef, Network, StreamName
from storage.database import connect, value
from storage.migrate import upgrade

LINK = "bench"
USER = UUID("0198c0de-0000-7000-8000-0000000000aa")
REQUESTS, RESULTS = StreamName.REQUESTS, StreamName.RESULTS


@dataclass(frozen=True)
class End:
    """One network: its database and its keys."""

    engine: AsyncEngine
    keys: LinkKeys

    async def wire(self, batch: BatchRef) -> bytes:
        """The bytes of a batch sealed here; marks it as delivered."""
        async with self.engine.begin() as connection:
            stored = await batch_after(connection, batch.stream, batch.epoch, batch.sequence - 1)
            await mark_delivered(
                connection, batch.stream, batch.epoch, batch.sequence, batch.sequence, 0, datetime.now(UTC)
            )
        assert stored is not None
        assert stored.payload is not None
        return to_wire(stored.manifest, stored.signature, stored.payload)


async def fill(request: End, response: End, records: int) -> None:
    """Add answered requests, a full batch at a time, until there are ``records``."""
    async with response.engine.connect() as connection:
        done = await value(connection, "SELECT count(*) FROM results")
    while done < records:
        count = min(MAX_RECORDS, records - done)
        await one_batch(request, response, count)
        done += count
        print(f"\rfilled {done:,}", end="", file=sys.stderr)
    print(file=sys.stderr)


async def one_batch(request: End, response: End, count: int) -> None:
    now = datetime.now(UTC)
    ids = [uuid7() for _ in range(count)]
    asked = [RequestRecord(request_id=each, user_id=USER, type="rows", submitted_at=now) for each in ids]
    async with request.engine.begin() as connection:
        lines = [orjson.dumps(each.model_dump(mode="json", exclude_none=True)) for each in asked]
        group = await Sealer(request.keys, LINK).seal(connection, REQUESTS, lines)
        rows = [NewRequest(each, USER, "rows", None, 5, b"{}", None, now, None) for each in ids]
        await store_submitted(connection, group, rows)
    await Receiver(response.engine, response.keys, LINK).accept(REQUESTS, await request.wire(group))
    async with response.engine.begin() as connection:
        await store_requests(connection, group, [(each, b"{}") for each in asked])
        bodies = [result_body(each, now) for each in ids]
        finished = [
            FinishedResult(each, "rows", "completed", None, 3, 3, 2.5, body)
            for each, body in zip(ids, bodies, strict=True)
        ]
        await store_executed(connection, finished)
        await mark_applied(connection, REQUESTS, group.epoch, group.sequence)
        batch = await Sealer(response.keys, LINK).seal(connection, RESULTS, bodies)
    await Receiver(request.engine, request.keys, LINK).accept(RESULTS, await response.wire(batch))
    async with request.engine.begin() as connection:
        arrived = [
            ArrivedResult(number, each, "completed", body)
            for number, (each, body) in enumerate(zip(ids, bodies, strict=True))
        ]
        await store_arrived(connection, batch, arrived)
        await mark_applied(connection, RESULTS, batch.epoch, batch.sequence)


def result_body(request_id: UUID, now: datetime) -> bytes:
    """Three rows of an airport each: some 600 bytes."""
    row = {"iata": "IST", "icao": "LTFM", "name": "Istanbul Airport", "latitude": 41.2753, "longitude": 28.7519}
    found = [row | {"distance_km": int(request_id) % 9973 + place, "country": "Türkiye"} for place in range(3)]
    return orjson.dumps(
        {
            "request_id": request_id,
            "status": "completed",
            "data": found,
            "returned": 3,
            "total": 3,
            "truncated": False,
            "error": None,
            "executed_at": now,
            "duration_ms": 2.5,
        }
    )


def variables(databases: Databases, keys: Path, port: int, home: Path) -> dict[str, str]:
    """Environment variables of the API and of the command."""
    mine = {key: content for key, content in os.environ.items() if not key.startswith("AIRLOCK_")}
    return mine | {
        "AIRLOCK_HOME": str(home),
        "AIRLOCK_LOG_LEVEL": "ERROR",
        "AIRLOCK_REQUEST_PORT": str(port),
        "AIRLOCK_REQUEST_DATABASE_URL": databases.request,
        "AIRLOCK_RESPONSE_DATABASE_URL": databases.response,
        "AIRLOCK_REQUEST_KEYS": str(keys / "request"),
        "AIRLOCK_RESPONSE_KEYS": str(keys / "response"),
        "AIRLOCK_REQUEST_LINK_ID": LINK,
        "AIRLOCK_RESPONSE_LINK_ID": LINK,
        "AIRLOCK_RESPONSE_LINK_URL": f"http://127.0.0.1:{port}",
        "AIRLOCK_REQUEST_TEMPORAL_ADDRESS": "127.0.0.1:1",
        "AIRLOCK_REQUEST_REDIS_URL": "redis://127.0.0.1:1/0",
        "PYTHONPATH": str(CLONE),
    }


def measure(environment: dict[str, str], port: int) -> dict[str, object]:
    """Serve the API, verify over the link, and measure the memory of both processes."""
    api = subprocess.Popen([sys.executable, "-m", "cli", "api", "request"], env=environment, cwd=CLONE)
    try:
        until_it_answers(port, api)
        began_mib = peak_mib(api.pid)
        began = time.perf_counter()
        found = subprocess.run(
            [sys.executable, "-m", "cli", "verify", "--json"], env=environment, cwd=CLONE, stdout=subprocess.PIPE
        )
        seconds = time.perf_counter() - began
        report = json.loads(found.stdout)
        compared = {each["stream"]: each["audits"] for each in report["streams"] if each["audits"]}
        sides = {network: sum(audits[network]["agree"] for audits in compared.values()) for network in Network}
        return {
            "exit_code": found.returncode,
            "seconds": round(seconds, 1),
            "records_agreed": sides,
            "records_per_second_and_side": round(max(sides.values()) / seconds),
            "command_peak_mib": round(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024),
            "api_peak_mib_before": began_mib,
            "api_peak_mib": peak_mib(api.pid),
        }
    finally:
        api.send_signal(signal.SIGTERM)
        api.wait(30)


def peak_mib(pid: int) -> int:
    """Peak of a process's resident memory so far."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))


def until_it_answers(port: int, api: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if api.poll() is not None:
            raise SystemExit("the API did not start")
        try:
            with urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("the API did not answer within a minute")


async def bench(root: Path, records: int) -> None:
    with Home.open(root / "home") as home:
        supervisor = Supervisor(Terminal(), home.logs)
        try:
            postgres = Postgres(home, free_port())
            await postgres.initialise()
            await supervisor.start(postgres.spec())
            databases = await create_databases(postgres, home)
            await upgrade(databases.request, "request")
            await upgrade(databases.response, "response")
            ensure_link_keys(root / "keys")
            request = End(connect(databases.request, 5, "bench"), load_link_keys(root / "keys" / "request"))
            response = End(connect(databases.response, 5, "bench"), load_link_keys(root / "keys" / "response"))
            await fill(request, response, records)
            for end in (request, response):
                await end.engine.dispose()
            port = free_port()
            environment = variables(databases, root / "keys", port, root)
            print(json.dumps({"records": records} | await asyncio.to_thread(measure, environment, port)))
        finally:
            await supervisor.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--home", type=Path, help="directory that is kept; a temporary one without it")
    options = parser.parse_args()
    if options.home is not None:
        asyncio.run(bench(options.home.resolve(), options.records))
        return
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(bench(Path(directory), options.records))


if __name__ == "__main__":
    main()
