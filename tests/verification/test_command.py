"""`airlock verify` as it is typed: tables, JSON, exit codes, and two files where there is no link."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.program import app
from exchange.audit.summary_file import SummaryFile
from exchange.errors import Malformed
from exchange.wire.keys import ensure_link_keys
from tests.activities.crossing import LINK, USER, change, new_id
from tests.verification.test_verifying import THREE_ROWS
from tests.verification.world import World


@pytest.fixture
def environment(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """The response network's variables."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    _set(monkeypatch, world, "response")
    monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_URL", world.url)
    return monkeypatch


def _set(monkeypatch: pytest.MonkeyPatch, world: World, network: str) -> None:
    side = getattr(world.networks, network)
    for name, content in (("DATABASE_URL", side.url), ("KEYS", str(side.keys_directory)), ("LINK_ID", LINK)):
        monkeypatch.setenv(f"AIRLOCK_{network.upper()}_{name}", content)


async def verify(*arguments: str) -> Result:
    """In a thread, since a command brings an event loop of its own."""
    return await asyncio.to_thread(CliRunner().invoke, app, ["verify", *arguments])


async def verified(*arguments: str) -> tuple[int, Any]:
    result = await verify("--json", *arguments)
    return result.exit_code, json.loads(result.stdout)


async def three_rows(world: World) -> tuple[str, str, str]:
    """One row removed, one byte of another changed, a third added."""
    gone, changed, _ = await world.answered()
    added, side = new_id(), world.networks.request
    await change(side, "DELETE FROM results WHERE request_id = :id", id=gone)
    await change(side, "UPDATE results SET body = set_byte(body, 99, 33) WHERE request_id = :id", id=changed)
    await change(side, THREE_ROWS, id=added, user=USER)
    return str(gone), str(changed), str(added)


async def test_three_rows_are_named_and_healed_and_the_exit_code_says_so(
    world: World, environment: pytest.MonkeyPatch
) -> None:
    three = await three_rows(world)
    shown = await verify()
    assert shown.exit_code == 1
    assert all(name in shown.stdout for name in (*three, "missing", "different", "extra", "DIFFERS"))
    code, found = await verified()
    assert (code, found["agrees"]) == (1, False)
    differences = [item for stream in found["streams"] for item in stream["differences"]]
    assert {(item["kind"], item["request_id"]) for item in differences} == set(
        zip(("missing", "different", "extra"), three, strict=True)
    )
    code, found = await verified("--repair")
    assert (code, found["agrees"]) == (0, True)
    assert found["repair"] == {"rebuilt": 2, "set_aside": 1, "taken_up_again": False, "left": []}
    good = await verify("--stream", "results")
    assert (good.exit_code, "agrees" in good.stdout, "settings" in good.stdout) == (0, True, False)


async def test_what_cannot_be_checked_is_a_sentence_and_exit_code_2(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment.setenv("AIRLOCK_RESPONSE_LINK_URL", "http://127.0.0.1:1")
    away = await verify()
    assert (away.exit_code, away.stdout, "cannot be checked" in away.stderr) == (2, "", True)
    assert (await verify("--stream", "nonsense")).exit_code == 2
    assert (await verify("--repair", "--set-aside")).exit_code == 2
    assert (await verify("--keys", str(tmp_path))).exit_code == 2
    assert (await verify("--offline", str(tmp_path / "a"), str(tmp_path / "b"))).exit_code == 2
    environment.setenv("AIRLOCK_RESPONSE_LINK_URL", world.url)
    environment.setenv("AIRLOCK_RESPONSE_DATABASE_URL", "postgresql://nobody@127.0.0.1:1/x")
    gone = await verify()
    assert (gone.exit_code, "does not answer" in gone.stderr) == (2, True)


async def test_two_exported_summaries_are_compared_without_the_link(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await world.answered()
    environment.setenv("AIRLOCK_RESPONSE_LINK_URL", "http://127.0.0.1:1")
    assert (await verify("--export", "response.ndjson")).exit_code == 0
    for name in ("DATABASE_URL", "KEYS", "LINK_ID"):
        environment.delenv(f"AIRLOCK_RESPONSE_{name}")
    _set(environment, world, "request")
    assert (await verify("--export", "request.ndjson")).exit_code == 0
    assert (await verify("--offline", "request.ndjson", "response.ndjson")).exit_code == 0
    three = await three_rows(world)
    assert (await verify("--export", "later.ndjson")).exit_code == 1
    code, found = await verified("--offline", "response.ndjson", "later.ndjson")
    names = {item["request_id"] for stream in found["streams"] for item in stream["differences"]}
    assert (code, names) == (1, set(three))
    same = await verify("--offline", "request.ndjson", "later.ndjson")
    assert (same.exit_code, "both summaries are the request network's" in same.stderr) == (2, True)


async def exported(world: World, environment: pytest.MonkeyPatch) -> None:
    """Both sides' summaries, as request.ndjson and response.ndjson."""
    await world.answered()
    assert (await verify("--export", "response.ndjson")).exit_code == 0
    for name in ("DATABASE_URL", "KEYS", "LINK_ID"):
        environment.delenv(f"AIRLOCK_RESPONSE_{name}")
    _set(environment, world, "request")
    assert (await verify("--export", "request.ndjson")).exit_code == 0


async def test_summaries_are_signed_and_a_changed_one_is_refused(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await exported(world, environment)
    both = ("--offline", "request.ndjson", "response.ndjson")
    root = world.networks.request.keys_directory.parent
    for keys in (root / "request", root / "response"):
        good = await verify(*both, "--keys", str(keys))
        assert (good.exit_code, "not checked" in good.stderr) == (0, False), good.stderr
    whole = (tmp_path / "request.ndjson").read_bytes()
    lines = whole.splitlines(keepends=True)
    other = whole.replace(b'"agree":3', b'"agree":4')
    assert other != whole
    miscounted = whole.replace(b'"lines":', b'"lines":1')
    for changed in (other, b"".join([*lines[:3], *lines[4:]]), whole + lines[1], miscounted):
        (tmp_path / "request.ndjson").write_bytes(changed)
        refused = await verify(*both, "--keys", str(root / "response"))
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "request.ndjson" in refused.stderr


async def test_without_keys_summaries_are_compared_and_that_is_said(
    world: World, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await exported(world, environment)
    both = ("--offline", "request.ndjson", "response.ndjson")
    for name in ("DATABASE_URL", "KEYS", "LINK_ID"):
        environment.delenv(f"AIRLOCK_REQUEST_{name}")
    shown = await verify(*both)
    assert (shown.exit_code, "signatures not checked" in shown.stderr) == (0, True)
    ensure_link_keys(tmp_path / "strangers")
    refused = await verify(*both, "--keys", str(tmp_path / "strangers"))
    assert (refused.exit_code, "not among the keys given" in refused.stderr) == (2, True)
    (tmp_path / "none").mkdir()
    assert (await verify(*both, "--keys", str(tmp_path / "none"))).exit_code == 2


async def test_a_torn_summary_is_recognised(world: World, environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    await world.answered()
    await verify("--export", "whole.ndjson")
    content = (tmp_path / "whole.ndjson").read_bytes()
    torn = tmp_path / "torn.ndjson"
    for length in (0, 10, len(content) // 2, len(content) - 5):
        torn.write_bytes(content[:length])
        with pytest.raises(Malformed, match="not a complete summary"):
            SummaryFile.open(torn)
