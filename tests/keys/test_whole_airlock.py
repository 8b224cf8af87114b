"""A whole Airlock under load while the keys of both networks rotate, by the command that an operator types."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from configuration.home import CLONE
from tests.system.running import RunningAirlock, eventually, result, submit

IST = {"type": "airport", "params": {"iata": "IST"}}


@pytest.fixture
async def airlock(tmp_path: Path) -> AsyncIterator[RunningAirlock]:
    running = RunningAirlock(tmp_path / "home")
    try:
        await running.start()
        yield running
    finally:
        await running.end()


def signing(airlock: RunningAirlock, network: str) -> bytes:
    return (airlock.home / "keys" / network / "signing.pem").read_bytes()


async def command(airlock: RunningAirlock, *arguments: str) -> Any:
    ended = await asyncio.to_thread(airlock.airlock, "keys", *arguments, "--json")
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


async def killed_at(airlock: RunningAirlock, network: str, step: str) -> None:
    """Begin a rotation and SIGKILL it as soon as it has said this step."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "cli", "keys", "rotate", "--network", network],
        env=airlock._environment,
        cwd=CLONE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None

    def until_said() -> None:
        for line in process.stdout or ():
            if line.startswith(f"{step}:"):
                process.send_signal(signal.SIGKILL)
                break

    await asyncio.to_thread(until_said)
    process.stdout.close()
    assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL


async def test_keys_rotate_under_load_and_nothing_is_refused_or_lost(airlock: RunningAirlock) -> None:
    answers: list[dict[str, Any]] = []
    stopping = asyncio.Event()
    async with airlock.caller() as http:

        async def load() -> None:
            while not stopping.is_set():
                ids = await submit(http, IST, IST)
                answers.extend([await result(http, request_id) for request_id in ids])

        loading = asyncio.create_task(load())
        before = {network: signing(airlock, network) for network in ("request", "response")}
        for network in before:
            await killed_at(airlock, network, "made")
            await killed_at(airlock, network, "switched")
            done = await command(airlock, "rotate", "--network", network)
            assert signing(airlock, network) != before[network]
            plain = await command(airlock, "rotate", "--network", network)
            assert (plain["before"], plain["resumed"]) == (done["now"], False)
            listed = {key["key_id"]: key["state"] for key in await command(airlock, "list", "--network", network)}
            assert [listed[key] for key in (done["before"], plain["before"], plain["now"])] == [
                "retiring",
                "retiring",
                "signing",
            ]
        counted = len(answers)

        async def more() -> bool:
            return len(answers) > counted + 20 or loading.done()

        await eventually(more, "requests go on")
        stopping.set()
        await loading
    assert {answer["status"] for answer in answers} == {"completed"}
    for refusal in ("link.refused", "link.away", "keys.not_exchanged", "refuses our signature"):
        assert refusal not in airlock.said
    for network, other in (("request", "response"), ("response", "request")):

        async def agree(network: str = network, other: str = other) -> bool:
            here, there = [
                {key["key_id"]: key["state"] for key in await command(airlock, "list", "--network", name)
                 if key["owner"] == network}
                for name in (network, other)
            ]  # fmt: skip
            assert "retiring" in here.values()
            return {key: state.replace("signing", "trusted") for key, state in here.items()} == there

        await eventually(agree, f"both networks say the same of the {network} network's keys")
    verified = await asyncio.to_thread(airlock.airlock, "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
