"""Record what the replay tests replay: `python -m tests.workflows.record_histories`, from the clone.

Starts a whole Airlock, gives it work of every kind, and writes one history of each shape that every workflow took to
`tests/workflows/histories/`. With ``--temporal HOST:PORT``, the address in the `up.json` of a running ``airlock up``,
it records what that one has done instead.

Record anew after a workflow was changed on purpose, and say in the commit why runs of before may be given up: whoever
upgrades while such runs are under way sees them stuck. A change that must spare them goes behind `workflow.patched`,
and the old histories stay beside the new.
"""

import argparse
import asyncio
import json
import signal
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from temporalio.client import Client, WorkflowHistory

from embedded.temporal import NAMESPACES
from tests.system.running import RunningAirlock, eventually, result, submit

HISTORIES = Path(__file__).with_name("histories")
SHAPES = 4
"""Of each workflow at most, the longest first."""
EVENTS = 400
"""A longer history adds to the clone and shows nothing more."""
BEFORE = "-before-"
"""In the names of histories of runs that are begun no more as they were, and go on all the same: they stay."""
AIRPORT: dict[str, Any] = {"type": "airport", "params": {"iata": "IST"}}


async def record(address: str) -> None:
    """Write the histories that this Temporal has."""
    shapes: defaultdict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
    for namespace in NAMESPACES:
        client = await Client.connect(address, namespace=namespace)
        async for execution in client.list_workflows():
            history = await client.get_workflow_handle(execution.id, run_id=execution.run_id).fetch_history()
            shape = shape_of(history)
            if "workflow_task_completed_event_attributes" in shape and len(shape) <= EVENTS:
                shapes[execution.workflow_type].setdefault(shape, scrubbed(history))
    HISTORIES.mkdir(exist_ok=True)
    for old in HISTORIES.glob("*.json"):
        if BEFORE not in old.name:
            old.unlink()
    for workflow, found in sorted(shapes.items()):
        chosen = sorted(found, key=len, reverse=True)[:SHAPES]
        for number, shape in enumerate(chosen, start=1):
            (HISTORIES / f"{workflow}-{number}.json").write_text(found[shape])
        print(f"{workflow}: {len(chosen)} of {len(found)} shapes, up to {len(chosen[0])} events")


def shape_of(history: WorkflowHistory) -> tuple[str, ...]:
    """The kinds of its events: what tells one course of a workflow from another."""
    return tuple(event.WhichOneof("attributes") or "" for event in history.events)


def scrubbed(history: WorkflowHistory) -> str:
    """The history as JSON, without what tells of the machine: identities, names of queues made from them, paths."""

    def scrub(item: Any) -> Any:
        if isinstance(item, list):
            return [scrub(part) for part in item]
        if not isinstance(item, dict):
            return item
        kept = {name: scrub(value) for name, value in item.items() if name not in ("stackTrace", "workerInstanceKey")}
        if "identity" in kept:
            kept["identity"] = "worker"
        if kept.get("kind") == "TASK_QUEUE_KIND_STICKY":
            kept["name"] = "sticky"
        return kept

    return json.dumps({"workflowId": history.workflow_id} | scrub(history.to_json_dict()), indent=1) + "\n"


async def work_of_every_kind(airlock: RunningAirlock) -> None:
    """Requests that are answered, called back for and expired, and a worker that stops and one that hangs in between.

    `airlock up` itself had samples answered and each schedule run once.
    """
    async with airlock.caller() as http:
        await asyncio.gather(*[result(http, request_id) for request_id in await submit(http, *[AIRPORT] * 3)])
        pid = airlock.signal("response-worker", signal.SIGTERM)

        async def another() -> bool:
            return bool(airlock.up["processes"].get("response-worker", pid) != pid)

        await eventually(another, "the worker is started again")
        async with unwilling_receiver() as url:
            await submit(http, AIRPORT | {"callback_url": url}, AIRPORT | {"callback_url": url})
        airlock.signal("response-worker", signal.SIGSTOP)
        ids = await submit(http, *[AIRPORT | {"deadline": seconds} for seconds in (2, 9)])

        async def have_expired() -> bool:
            seen = [(await http.get(f"/v1/requests/{request_id}")).json()["status"] for request_id in ids]
            return seen == ["expired", "expired"]

        await eventually(have_expired, "the requests expire while nobody executes them")
        airlock.signal("response-worker", signal.SIGCONT)
        await result(http, (await submit(http, AIRPORT))[0])


class unwilling_receiver:
    """Takes callbacks only when they come for the second time; leaves when it has taken two."""

    async def __aenter__(self) -> str:
        self._calls = 0
        self._taken = asyncio.Event()
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(60):
            await self._taken.wait()
        self._server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(length)
        self._calls += 1
        status = b"503 Not Now" if self._calls <= 2 else b"204 Taken"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        if self._calls >= 4:
            self._taken.set()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--temporal", metavar="HOST:PORT", help="record what is there instead of starting an Airlock")
    address = parser.parse_args().temporal
    if address:
        await record(address)
        return
    with tempfile.TemporaryDirectory() as directory:
        airlock = RunningAirlock(Path(directory) / "home")
        try:
            await airlock.start()
            await work_of_every_kind(airlock)
            await record(airlock.up["temporal"])
        finally:
            await airlock.end()


if __name__ == "__main__":
    asyncio.run(main())
