"""The whole boot on the real servers; small programs stand for Airlock's own processes and what they need."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedded.ports import free_ports
from tests.embedded.waiting import is_alive

CLONE = Path(__file__).resolve().parents[2]
PROCESSES = {"temporal", "postgres", "redis", "request-api", "response-api", "request-worker", "response-worker"}
FAKES = {
    "storage/migrate.py": "async def upgrade(url, network): assert network in url, url",
    "exchange/wire/keys.py": "def ensure_link_keys(root): (root / 'request').mkdir(exist_ok=True)",
    "sample/install.py": """
from types import SimpleNamespace
async def install(url, reader, secrets):
    return SimpleNamespace(api_key="api", operator_key="operator")
""",
    "sample/requests.py": "async def run_samples(api, key): print('samples asked at', api, flush=True)",
    "cli/__main__.py": """
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
role, network = sys.argv[1:]
own = {k: v for k, v in os.environ.items() if k.startswith("AIRLOCK_")}
open(os.path.join(os.environ["AIRLOCK_HOME"], f"{network}-{role}.json"), "w").write(json.dumps(own))
class Ready(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
if role == "worker":
    print("worker.ready", flush=True)
    time.sleep(600)
HTTPServer(("127.0.0.1", int(os.environ[f"AIRLOCK_{network.upper()}_PORT"])), Ready).serve_forever()
""",
}
RUN = """
import asyncio, sys
from pathlib import Path
from embedded import boot
from embedded.up import UpOptions, up
boot.CLONE = Path(sys.argv[1])
sys.exit(asyncio.run(up(UpOptions(free_ports="--free-ports" in sys.argv))))
"""


class Up:
    """A running `up` with the fakes in front of the clone."""

    def __init__(self, root: Path, *arguments: str, **environment: str) -> None:
        fakes = root / "fakes"
        for name, code in FAKES.items():
            (fakes / name).parent.mkdir(parents=True, exist_ok=True)
            (fakes / name).write_text(code)
            (fakes / name).with_name("__init__.py").touch()
        self.home = root / "home"
        self.output = root / "output.txt"
        path = os.pathsep.join(filter(None, (str(fakes), str(CLONE), os.environ.get("PYTHONPATH"))))
        with self.output.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", RUN, str(fakes), *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONPATH": path, "AIRLOCK_HOME": str(self.home), **environment},
            )

    def wait_until_up(self) -> dict[str, Any]:
        """What up.json says."""
        deadline = time.monotonic() + 60
        while not (self.home / "up.json").exists():
            assert self.process.poll() is None, self.output.read_text()
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)
        content: dict[str, Any] = json.loads((self.home / "up.json").read_text())
        return content

    def end(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    running = Up(tmp_path, "--free-ports")
    yield running
    if running.process.poll() is None:
        running.process.terminate()
        running.process.wait(60)


def gone(pids: list[int], patience: float = 10.0) -> bool:
    """Whether all these processes end in time."""
    deadline = time.monotonic() + patience
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_up_starts_everything_says_where_it_is_and_leaves_nothing(up: Up, tmp_path: Path) -> None:
    content = up.wait_until_up()
    assert set(content["processes"]) == PROCESSES
    assert all(is_alive(pid) for pid in content["processes"].values())
    assert (content["api_key"], content["operator_key"]) == ("api", "operator")
    assert content["namespaces"] == {"request": "request", "response": "response"}
    assert stat.S_IMODE((up.home / "up.json").stat().st_mode) == 0o600

    request = json.loads((up.home / "request-worker.json").read_text())
    response = json.loads((up.home / "response-worker.json").read_text())
    assert not [name for name in request if name.startswith("AIRLOCK_RESPONSE_")]
    assert not [name for name in response if name.startswith("AIRLOCK_REQUEST_")]
    assert request["AIRLOCK_REQUEST_DATABASE_URL"] == content["databases"]["request"]
    assert response["AIRLOCK_RESPONSE_LINK_URL"] == content["request_api"]
    assert "airlock_reader" in json.loads(response["AIRLOCK_RESPONSE_SOURCES"])["sample"]

    second = Up(tmp_path, "--free-ports")
    assert second.process.wait(30) == 1
    assert f"(pid {up.process.pid}, {content['request_api']})" in second.output.read_text()

    killed = content["processes"]["request-worker"]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while up.wait_until_up()["processes"].get("request-worker", killed) == killed:
        assert time.monotonic() < deadline
        time.sleep(0.02)

    pids = list(up.wait_until_up()["processes"].values())
    assert up.end() == 0
    assert not any(is_alive(pid) for pid in pids)
    for namespace in content["namespaces"]:
        assert f"{content['temporal_ui']}/namespaces/{namespace}/workflows" in up.output.read_text()
    assert not (up.home / "up.json").exists()


def test_after_kill_9_nothing_is_left_and_the_same_ports_serve_again(tmp_path: Path) -> None:
    chosen = {f"AIRLOCK_{name.upper()}_PORT": str(port) for name, port in vars(free_ports()).items() if port}
    first = Up(tmp_path, **chosen)
    pids = list(first.wait_until_up()["processes"].values())
    first.process.kill()
    first.process.wait()
    second = Up(tmp_path, **chosen)
    try:
        deadline = time.monotonic() + 30  # until the second one has written its own up.json
        while "Airlock is up" not in second.output.read_text():
            assert second.process.poll() is None, second.output.read_text()
            assert time.monotonic() < deadline, second.output.read_text()
            time.sleep(0.02)
        assert gone(pids)
        assert not set(second.wait_until_up()["processes"].values()) & set(pids)
    finally:
        assert second.end() == 0


def test_ctrl_c_while_booting_stops_what_runs_already(up: Up) -> None:
    deadline = time.monotonic() + 30
    while "ready in" not in up.output.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert up.end() == 0
    assert "Everything is stopped." in up.output.read_text()
    assert gone(_pids_of(up.output.read_text()))


def _pids_of(text: str) -> list[int]:
    return [int(line.split("(pid ")[1].split(")")[0]) for line in text.splitlines() if "(pid " in line]
