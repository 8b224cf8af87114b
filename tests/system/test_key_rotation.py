"""A whole Airlock under load while the keys of both networks rotate, by the command that an operator types."""

import asyncio
import json
import signal
import subprocess
import sys
from typing import Any

from configuration.home import CLONE
from tests.system.running import RunningAirlock, eventually, result, submit

IST = {"type": "airport", "params": {"iata": "IST"}}


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


async def rotated(airlock: RunningAirlock, network: str) -> None:
    """Rotate a network's key by a command that is killed, and by one that completes what that one began."""
    before = signing(airlock, network)
    await killed_at(airlock, network, "switched")
    done = await command(airlock, "rotate", "--network", network)
    assert done["resumed"]
    assert signing(airlock, network) != before
    listed = {key["key_id"]: key["state"] for key in await command(airlock, "list", "--network", network)}
    assert [listed[key] for key in (done["before"], done["now"])] == ["retiring", "signing"]


async def test_keys_rotate_under_load_and_nothing_is_refused_or_lost(airlock: RunningAirlock) -> None:
    said_before = len(airlock.said)
    answers: list[dict[str, Any]] = []
    stopping = asyncio.Event()
    async with airlock.caller() as http:

        async def load() -> None:
            while not stopping.is_set():
                ids = await submit(http, IST, IST)
                answers.extend([await result(http, request_id) for request_id in ids])

        loading = asyncio.create_task(load())
        await asyncio.gather(rotated(airlock, "request"), rotated(airlock, "response"))
        counted = len(answers)

        async def more() -> bool:
            return len(answers) > counted + 20 or loading.done()

        await eventually(more, "requests go on")
        stopping.set()
        await loading
    assert {answer["status"] for answer in answers} == {"completed"}
    for refusal in ("link.refused", "link.away", "keys.not_exchanged", "refuses our signature"):
        assert refusal not in airlock.said[said_before:]

    async def states(network: str, owner: str) -> dict[str, str]:
        keys = await command(airlock, "list", "--network", network)
        return {key["key_id"]: key["state"] for key in keys if key["owner"] == owner}

    async def agree() -> bool:
        """Each network trusts what the other one signs with, and both know what retires."""
        for network, other in (("request", "response"), ("response", "request")):
            here, there = await states(network, network), await states(other, network)
            assert "retiring" in here.values()
            if {key: state.replace("signing", "trusted") for key, state in here.items()} != there:
                return False
        return True

    await eventually(agree, "both networks say the same of all keys")
    verified = await asyncio.to_thread(airlock.airlock, "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
