"""Workers and the request network's API as real processes, against servers of their own."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from uuid_utils.compat import uuid7

from configuration.home import CLONE
from configuration.redis_url import redis_database
from execution.request_types import put_request_type
from models.requests import Limits
from models.streams import Network
from people.users import put_api_key, put_user
from storage.database import rows
from tests.conftest import Networks

USERS_KEY = "alk_a-test-users-key"


async def eventually(check: Callable[[], Awaitable[Any]], what: Callable[[], str], patience: float = 60.0) -> Any:
    """Wait until the check gives something true, and give it; fails the test when it does not."""
    try:
        async with asyncio.timeout(patience):
            while not (found := await check()):  # noqa: ASYNC110, other processes tell nobody
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"not within {patience:g} s: {what()}") from None
    return found


class Child:
    """A started process and what it writes."""

    def __init__(self, process: Process, output: Path) -> None:
        self.process = process
        self.pid = process.pid
        self._output = output

    @property
    def said(self) -> str:
        return self._output.read_text()

    async def says(self, text: str, times: int = 1) -> None:
        """Return when it has written this so often; fails when it ends before."""

        async def has_said() -> bool:
            assert self.process.returncode is None or self.said.count(text) >= times, self.said
            return self.said.count(text) >= times

        await eventually(has_said, lambda: f"{text!r} {times} times in:\n{self.said}")

    async def ends(self, number: signal.Signals | None = None) -> int:
        """The exit code, after this signal if one is given."""
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), 60)


@dataclass
class World:
    """Both networks' databases, a Temporal, a port for the request network's API, and the processes of one test."""

    networks: Networks
    temporal: str
    port: int
    room: Path
    """Where the home, the outputs, the gate and the calls are."""
    children: list[Child] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.room / "home"

    def environment(self) -> dict[str, str]:
        """What the processes are told."""
        told = {"AIRLOCK_HOME": str(self.home), "TEST_ROOM": str(self.room), "PYTHONPATH": str(CLONE)}
        for side in (self.networks.request, self.networks.response):
            prefix = f"AIRLOCK_{side.network.upper()}_"
            told |= {
                prefix + "DATABASE_URL": side.url,
                prefix + "REDIS_URL": redis_database(
                    self.networks.servers.redis_url, list(Network).index(side.network) + 4
                ),
                prefix + "TEMPORAL_ADDRESS": self.temporal,
                prefix + "KEYS": str(side.keys_directory),
            }
        told["AIRLOCK_REQUEST_PORT"] = str(self.port)
        told["AIRLOCK_RESPONSE_LINK_URL"] = f"http://127.0.0.1:{self.port}"
        told["AIRLOCK_RESPONSE_PYTHON_EXECUTORS"] = json.dumps(["tests.worker.functions"])
        return {k: v for k, v in os.environ.items() if not k.startswith("AIRLOCK_")} | told

    async def run(self, *arguments: str, **changed: str) -> Child:
        """Start a Python program of the clone."""
        output = self.room / f"output{len(self.children)}"
        with output.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, *arguments), cwd=CLONE, env=self.environment() | changed, stdout=file, stderr=file
            )
        self.children.append(Child(process, output))
        return self.children[-1]

    async def worker(self, *network: str) -> Child:
        """A worker; not ready yet."""
        return await self.run("worker.py", *network)

    async def begin(self) -> None:
        """The request network's API, a request type and a user; a worker of each network must be under way."""
        async with self.networks.response.engine.begin() as connection:
            await put_api_key(connection, await put_user(connection, uuid7(), "tester", "user"), USERS_KEY, "test")
            await put_request_type(
                connection,
                "answer",
                "says which process answered",
                {"type": "object"},
                Limits(timeout=300).model_dump(),
                {"kind": "python", "function": "tests.worker.functions:answer"},
                "test",
            )
        await self.run("-m", "cli", "api", "request")

    def caller(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Authorization": f"Bearer {USERS_KEY}"},
            timeout=30,
            trust_env=False,
        )

    async def submit(self, *parameters: dict[str, Any]) -> set[UUID]:
        """Submit requests, once the request network knows the type and the user."""
        async with self.caller() as http:

            async def accepted() -> Any:
                try:
                    answer = await http.post("/v1/requests", json=[{"type": "answer", "params": p} for p in parameters])
                except httpx.TransportError:
                    return None
                return answer.json()["ids"] if answer.status_code == 202 else None

            outputs = "\n".join(child.said for child in self.children)
            return {UUID(found) for found in await eventually(accepted, lambda: outputs)}

    def open_the_gate(self) -> None:
        """Let all executions that wait, and those to come, end."""
        (self.room / "gate").touch()

    def close_the_gate(self) -> None:
        """Let those to come wait again."""
        (self.room / "gate").unlink()

    def calls(self) -> list[dict[str, int]]:
        """What was executed, by whom."""
        try:
            return [json.loads(line) for line in (self.room / "calls").read_text().splitlines()]
        except FileNotFoundError:
            return []

    async def called(self, times: int) -> None:
        """Return when so many executions have begun."""

        async def enough() -> bool:
            return len(self.calls()) >= times

        await eventually(enough, lambda: f"{times} executions, not {len(self.calls())}")

    async def results(self, network: Network) -> Counter[UUID]:
        """How often each request has a completed result there."""
        engine = getattr(self.networks, network).engine
        async with engine.connect() as connection:
            found = await rows(connection, "SELECT request_id FROM results WHERE status = 'completed'")
        return Counter(request_id for (request_id,) in found)

    async def arrived(self, ids: set[UUID]) -> None:
        """Return when all these results are in the request network; fails if a request has two in either."""

        async def all_there() -> bool:
            return set(await self.results(Network.REQUEST)) >= ids

        await eventually(all_there, lambda: "\n".join(child.said for child in self.children))
        for network in Network:
            found = await self.results(network)
            assert set(found) == ids
            assert set(found.values()) == {1}

    async def end(self) -> None:
        """Stop what still runs."""
        self.open_the_gate()
        left = [child for child in self.children if child.process.returncode is None]
        for child in left:
            child.process.terminate()
        for child in left:
            try:
                await asyncio.wait_for(child.process.wait(), 40)
            except TimeoutError:
                child.process.kill()
                await child.process.wait()
