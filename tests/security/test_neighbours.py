"""Other users of the machine on which `airlock up` runs: nothing to read, nothing to write, nothing to start.

Temporal's development server has no authentication. What a neighbour stops there comes back: that is shown as well.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from temporalio.client import Client

from configuration.cadences import DEFAULT_CADENCES
from tests.system.running import RunningAirlock, eventually

NEIGHBOUR, NOBODY = 12345, 65534
"""A user who has nothing to do with Airlock, and the one as whom root's PostgreSQL runs."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture(scope="module")
async def airlock() -> AsyncIterator[RunningAirlock]:
    """`airlock up` in a home below a directory that everybody may enter, started by somebody with an open umask."""
    place = Path(tempfile.mkdtemp(prefix="neighbours-"))
    place.chmod(0o755)
    running = RunningAirlock(place / "home", AIRLOCK_CANARY="a secret of the environment")
    before = os.umask(0)
    try:
        await running.start()
        os.umask(before)
        yield running
    finally:
        os.umask(before)
        await running.end()
        shutil.rmtree(place)


def family(airlock: RunningAirlock) -> list[psutil.Process]:
    """The processes of `up` and their children; not the supervisor, which is root's like the tests."""
    named = [psutil.Process(pid) for pid in airlock.up["processes"].values()]
    return [*named, *(child for each in named for child in each.children(recursive=True))]


def listening(processes: list[psutil.Process], kind: str) -> list[Any]:
    """The ports, or the paths of unix sockets, on which these listen."""
    found = [each for process in processes for each in process.net_connections(kind)]
    if kind == "unix":
        return sorted({each.laddr for each in found if each.laddr})
    return sorted({each.laddr.port for each in found if each.status == psutil.CONN_LISTEN})


def attack(airlock: RunningAirlock, uid: int, directory: Path, tmp_path: Path) -> dict[str, list[str]]:
    processes = family(airlock)
    target = {
        "directory": str(directory),
        "processes": [process.pid for process in processes],
        "tcp": listening(processes, "tcp"),
        "unix": listening(processes, "unix"),
    }
    assert len(target["unix"]) >= 2, "Redis and PostgreSQL listen"
    file = tmp_path / "target.json"
    file.write_text(json.dumps(target))
    program = Path(__file__).with_name("neighbour.py")
    ended = subprocess.run([sys.executable, program, str(uid), file], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    done: dict[str, list[str]] = json.loads(ended.stdout)
    return done


@as_root
@pytest.mark.parametrize("uid", [NEIGHBOUR, NOBODY])
async def test_a_neighbour_reads_and_writes_nothing(airlock: RunningAirlock, uid: int, tmp_path: Path) -> None:
    done = attack(airlock, uid, airlock.home, tmp_path)
    if uid == NOBODY:  # PostgreSQL's own user may signal it and see its shared memory, but not its files and sockets
        assert set(done) <= {"signal", "shared memory"}
        assert set(done["signal"]) <= {str(each.pid) for each in family(airlock) if each.uids().real == NOBODY}
    else:
        assert done == {}


@as_root
async def test_the_attack_works_where_something_is_open(airlock: RunningAirlock, tmp_path: Path) -> None:
    """Otherwise the test above would prove nothing."""
    open_place = airlock.home.with_name("open")
    open_place.mkdir(mode=0o777)
    open_place.chmod(0o777)
    (open_place / "file").write_text("read me")
    done = attack(airlock, NEIGHBOUR, open_place, tmp_path)
    assert set(done) >= {"read", "list", "create", "rename"}


async def test_everything_in_the_home_is_the_owners_only(airlock: RunningAirlock) -> None:
    wrong = {
        str(place.relative_to(airlock.home)): stat.filemode(place.lstat().st_mode)
        for place in (airlock.home, *airlock.home.rglob("*"))
        if not place.is_symlink() and place.lstat().st_mode & 0o077
    }
    # PostgreSQL makes its lock files readable, in its own directories, which are closed. Public keys are public.
    wrong = {name: mode for name, mode in wrong.items() if "postgres/" not in name}
    assert {name: mode for name, mode in wrong.items() if "/trusted/" not in name or mode != "-rw-r--r--"} == {}
    assert stat.S_IMODE((airlock.home / "postgres").stat().st_mode) == 0o700
    assert stat.S_IMODE((airlock.home / "sockets" / "postgres").stat().st_mode) == 0o700


async def test_command_lines_which_all_users_may_read_hold_no_secret(airlock: RunningAirlock) -> None:
    secrets = {path.read_text().strip() for path in (airlock.home / "secrets").iterdir() if path.is_file()}
    secrets |= {airlock.up["api_key"], airlock.up["operator_key"]}
    lines = [" ".join(process.cmdline()) for process in family(airlock)]
    assert secrets
    assert not [line for line in lines for secret in secrets if secret and secret in line]


async def test_redis_and_postgres_have_no_port(airlock: RunningAirlock) -> None:
    up = airlock.up
    assert up["redis"].startswith("unix:///")
    assert "redis_tcp" not in up
    for name in ("redis", "postgres"):
        process = psutil.Process(up["processes"][name])
        assert listening([process, *process.children(recursive=True)], "tcp") == []


async def test_the_apis_are_closed_without_a_key(airlock: RunningAirlock) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for api, other in (("request_api", "/v1/requests"), ("response_api", "/v1/schedules")):
            for path in (other, "/v1/settings", "/v1/health", "/metrics"):
                assert (await http.get(airlock.up[api] + path)).status_code == 401


async def test_what_a_neighbour_stops_in_temporal_comes_back_within_30_s_and_a_pause_shows_at_once(
    airlock: RunningAirlock,
) -> None:
    client = await Client.connect(airlock.up["temporal"], namespace="response")
    pulling = client.get_workflow_handle("pull-requests")
    before = (await pulling.describe()).run_id
    await client.get_schedule_handle("export-settings").pause(note="by a neighbour")
    async with airlock.caller("response") as operator:
        health = (await operator.get("/v1/health")).json()
        assert "schedule-paused:export-settings" in {alert["name"] for alert in health["alerts"]}
        assert health["status"] != "ok"
    await pulling.terminate()
    for name in DEFAULT_CADENCES:
        await client.get_schedule_handle(name).delete()

    async def is_back() -> bool:
        described = await pulling.describe()
        ids = {found.id async for found in await client.list_schedules()}
        running = described.run_id != before and described.status is not None and described.status.name == "RUNNING"
        return running and ids >= DEFAULT_CADENCES.keys()

    await eventually(is_back, "pulling and the schedules are there again", 30)
