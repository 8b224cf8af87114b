"""SIGTERM to the API as it is started: who waits is answered, what was accepted is stored, the exit code is 0."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api.listening import Listener
from api.request import create_app
from api.serving import served
from configuration.home import CLONE
from configuration.redis_url import redis_database
from embedded.ports import free_port
from exchange.carriers.http import LinkClient
from exchange.wire.http_signature import HttpSigner
from models.errors import ConfigurationError
from models.streams import StreamName
from storage.database import value
from tests.api_request.serving import AIRPORT, AWAY, IST, User, eventually, new_user, publish, settings_for
from tests.conftest import Networks

STOPS_WITHIN = 8.0
"""Seconds; an orchestrator that was not told otherwise kills after ten."""


@dataclass
class Running:
    """The API as a process of its own."""

    process: "subprocess.Popen[bytes]"
    port: int
    networks: Networks
    user: User
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def ended(self) -> int:
        """Its exit code, once it has ended by itself."""
        return await asyncio.to_thread(self.process.wait, STOPS_WITHIN)


@pytest.fixture
async def running(fresh: Networks, tmp_path: Path) -> AsyncIterator[Running]:
    user, port = new_user(), free_port()
    await publish(fresh, [user.record(), AIRPORT])
    environment = {name: content for name, content in os.environ.items() if not name.startswith("AIRLOCK_")}
    told = {
        "DATABASE_URL": fresh.request.url,
        "REDIS_URL": redis_database(fresh.servers.redis_url, 5),
        "TEMPORAL_ADDRESS": AWAY,
        "KEYS": str(fresh.request.keys_directory),
        "LINK_ID": "test",
        "PORT": str(port),
    }
    environment |= {f"AIRLOCK_REQUEST_{name}": content for name, content in told.items()}
    log = tmp_path / "api.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli", "api", "request"],
            env=environment,
            cwd=CLONE,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    running = Running(process, port, fresh, user, log)

    async def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(httpx.TransportError):
            async with httpx.AsyncClient(base_url=running.url, trust_env=False) as http:
                return (await http.get("/readyz")).status_code == 200
        return False

    try:
        await eventually(ready, "the API is ready", 30)
        yield running
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_who_waits_is_answered_and_the_process_ends_well(running: Running, number: signal.Signals) -> None:
    response = running.networks.response
    link = LinkClient(running.url, HttpSigner(response.keys, "test"))
    async with running.user.calls(running.url) as http:
        request_id = (await http.post("/v1/requests", json=IST)).json()["id"]
        newest = await newest_batch(running)
        waits = [asyncio.create_task(http.get(f"/v1/requests/{request_id}/result?wait=60")) for _ in range(5)]
        pulls = [asyncio.create_task(link.pull(StreamName.REQUESTS, newest, 60)) for _ in range(5)]
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        for _ in range(10):
            assert (await http.get(f"/v1/requests/{request_id}")).status_code == 200
        running.process.send_signal(number)
        for answered in await asyncio.gather(*waits):
            assert (answered.status_code, answered.json()["status"]) == (202, "queued")
        assert await asyncio.gather(*pulls) == [[]] * 5
        assert await running.ended() == 0, running.log.read_text()
        writer.close()
    await link.aclose()


async def newest_batch(running: Running) -> int:
    async with running.networks.request.engine.connect() as connection:
        found: int = await value(connection, "SELECT max(sequence) FROM sealed_batches WHERE stream = 'requests'")
    return found


async def test_a_caller_who_never_finishes_sending_does_not_hold_the_end_up(running: Running) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)
    head = f"POST /v1/requests HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {running.user.key}\r\n"
    writer.write(head.encode() + b"Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")
    await writer.drain()
    async with running.user.calls(running.url) as http:
        assert (await http.get("/v1/requests")).status_code == 200
    running.process.send_signal(signal.SIGTERM)
    assert await running.ended() == 0, running.log.read_text()
    writer.close()


async def test_what_is_being_submitted_is_stored_or_was_not_accepted(running: Running) -> None:
    async with running.user.calls(running.url) as http:

        async def submit() -> str | None:
            try:
                accepted = await http.post("/v1/requests", json=IST)
            except httpx.TransportError:
                return None
            return str(accepted.json()["id"]) if accepted.status_code == 202 else None

        first = await submit()
        submitting = [asyncio.create_task(submit()) for _ in range(30)]
        await submitting[0]
        running.process.send_signal(signal.SIGTERM)
        accepted = {first, *await asyncio.gather(*submitting)} - {None}
    assert await running.ended() == 0, running.log.read_text()
    async with running.networks.request.engine.connect() as connection:
        stored = await value(
            connection, "SELECT count(*) FROM requests WHERE request_id = ANY(CAST(:ids AS uuid[]))", ids=list(accepted)
        )
    assert stored == len(accepted) > 1


async def test_a_port_that_is_taken_ends_the_start_with_a_sentence(fresh: Networks) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"127.0.0.1:{port}.*in use"):
            async with served(create_app(settings_for(fresh)), [Listener("127.0.0.1", port)]) as serving:
                await asyncio.wait((serving,))
