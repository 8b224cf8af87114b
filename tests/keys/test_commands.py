"""`airlock keys` in a network, as an operator types it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.program import app
from exchange.wire.keys import load_link_keys
from models.streams import Network
from tests.activities.crossing import LINK
from tests.keys.world import World

RESPONSE, REQUEST = Network.RESPONSE, Network.REQUEST

Airlock = Callable[..., Awaitable[Result]]


@pytest.fixture
def airlock(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Airlock:
    """Runs a command in a thread, since the API is served in this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    for network in Network:
        side = world.side(network)
        prefix = f"AIRLOCK_{network.upper()}_"
        monkeypatch.setenv(f"{prefix}DATABASE_URL", side.url)
        monkeypatch.setenv(f"{prefix}KEYS", str(side.keys_directory))
        monkeypatch.setenv(f"{prefix}LINK_ID", LINK)
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_URL", world.urls[0])
    return lambda *arguments: asyncio.to_thread(CliRunner().invoke, app, ["keys", *arguments])


async def states(airlock: Airlock, network: Network) -> dict[str, str]:
    listed = await airlock("list", "--network", network, "--json")
    assert listed.exit_code == 0, listed.output
    return {key["key_id"]: key["state"] for key in json.loads(listed.stdout)}


async def test_a_rotation_says_each_step_and_the_lists_of_both_networks_agree(world: World, airlock: Airlock) -> None:
    request, response = (load_link_keys(world.side(network).keys_directory).key_id for network in (REQUEST, RESPONSE))
    assert await states(airlock, REQUEST) == {request: "signing", response: "trusted"}
    rotated = await airlock("rotate", "--overlap", "60")
    assert rotated.exit_code == 0, rotated.output
    assert [line.partition(":")[0] for line in rotated.stdout.splitlines()] == [
        "made",
        "confirmed",
        "switched",
        "retiring",
        "done",
    ]
    new = load_link_keys(world.networks.response.keys_directory).key_id
    assert await states(airlock, RESPONSE) == {new: "signing", response: "retiring", request: "trusted"}
    assert await states(airlock, REQUEST) == {new: "trusted", response: "retiring", request: "signing"}
    table = await airlock("list")
    assert response in table.stdout


async def test_a_revoked_key_of_ours_is_told_to_the_other_network(world: World, airlock: Airlock) -> None:
    old = load_link_keys(world.networks.response.keys_directory).key_id
    refused = await airlock("retire", old)
    assert refused.exit_code == 1
    assert f"key {old} signs for this network" in refused.stderr
    await airlock("rotate")
    retired = await airlock("retire", old)
    assert (retired.exit_code, retired.stdout) == (0, f"key {old} is revoked. The other network knows it.\n")
    assert (await states(airlock, REQUEST))[old] == "revoked"


async def test_a_key_is_trusted_from_a_file(world: World, airlock: Airlock, tmp_path: Path) -> None:
    assert (await airlock("create", str(tmp_path / "others"))).exit_code == 0
    new = load_link_keys(tmp_path / "others" / "response").key_id
    file = str(tmp_path / "others" / "request" / "trusted" / f"{new}.pem")
    trusted = await airlock("trust", file, "--network", "request", "--json")
    assert json.loads(trusted.stdout) == {"key_id": new}
    assert (await states(airlock, REQUEST))[new] == "trusted"
    own = await airlock("trust", str(world.networks.request.keys_directory / "signing.pem"), "--network", "request")
    assert own.exit_code == 2
    assert "is not a public key" in own.stderr


async def test_a_directory_that_cannot_be_written_is_named(
    world: World, airlock: Airlock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("exchange.wire.keys._write_private", refuse)
    refused = await airlock("rotate")
    assert refused.exit_code == 2
    assert f"no key can be written to {world.networks.response.keys_directory} (Permission denied)" in refused.stderr


@pytest.mark.parametrize("arguments", [("rotate", "--overlap", "1"), ("rotate", "--network", "both"), ("retire",)])
async def test_nonsense_is_refused(airlock: Airlock, arguments: tuple[str, ...]) -> None:
    assert (await airlock(*arguments)).exit_code == 2
