"""`python worker.py`: what it says when it cannot work, and that one process may work for both networks."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configuration.home import CLONE
from tests.worker.processes import World


def started(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a worker that ends by itself."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AIRLOCK_")}
    return subprocess.run(
        [sys.executable, "worker.py", *arguments],
        cwd=CLONE,
        env=own | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("arguments", [["requests"], ["request", "response"]], ids=" ".join)
def test_an_argument_that_names_no_network_is_answered_by_the_usage(arguments: list[str], tmp_path: Path) -> None:
    ended = started(*arguments, AIRLOCK_HOME=str(tmp_path))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "usage: python worker.py [request|response]\n"


@pytest.mark.parametrize("network", ["request", ""])
def test_what_is_not_configured_is_named_before_anything_is_opened(network: str, tmp_path: Path) -> None:
    answered = {f"AIRLOCK_{name}_TEMPORAL_ADDRESS": "127.0.0.1:1" for name in ("REQUEST", "RESPONSE")}
    if not network:
        answered["AIRLOCK_REQUEST_DATABASE_URL"] = "postgresql://nobody@127.0.0.1:1/none"
    ended = started(*filter(None, [network]), AIRLOCK_HOME=str(tmp_path), **answered)
    assert ended.returncode == 2
    assert f"AIRLOCK_{(network or 'response').upper()}_DATABASE_URL: not set" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_without_temporal_a_sentence_tells_what_to_look_at(key_root: Path, tmp_path: Path) -> None:
    network, prefix = "response", "AIRLOCK_RESPONSE_"
    ended = started(
        network,
        **{
            "AIRLOCK_HOME": str(tmp_path),
            prefix + "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none",
            prefix + "TEMPORAL_ADDRESS": "127.0.0.1:1",
            prefix + "KEYS": str(key_root / network),
        },
    )
    assert ended.returncode == 1
    assert "Is Temporal running" in ended.stderr
    assert "127.0.0.1:1" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    assert not (tmp_path / f"worker-{network}.ready").exists()


async def test_a_namespace_that_is_not_there_is_told_in_a_sentence(world: World) -> None:
    prefix = "AIRLOCK_REQUEST_TEMPORAL_NAMESPACE"
    worker = await world.run("worker.py", "request", **{prefix: "elsewhere"})
    assert await worker.ends() == 1
    assert "Namespace elsewhere is not found" in worker.said
    assert "Traceback" not in worker.said


async def test_one_process_works_for_both_networks_when_none_is_named(world: World) -> None:
    worker = await world.worker()
    await world.begin()
    await worker.says("worker.ready", times=2)
    ready = [world.home / f"worker-{network}.ready" for network in ("request", "response")]
    assert [file.read_text().strip() for file in ready] == [str(worker.pid)] * 2
    await world.arrived(await world.submit({"number": 1}, {"number": 2}))
    assert await worker.ends(signal.SIGTERM) == 0
    assert not any(file.exists() for file in ready)
