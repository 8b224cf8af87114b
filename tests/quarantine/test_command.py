"""`airlock quarantine` and the operators' API over the same records."""

import asyncio
import json
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.program import app
from models.printable import printable
from models.streams import StreamName
from tests.activities.crossing import cross, new_id, request_record, result_record, submit
from tests.quarantine.conftest import World

POISON = b"\x1b]0;owned\x07\xff torn"


@pytest.fixture
def known(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> World:
    """The machine knows both networks."""
    monkeypatch.setenv("AIRLOCK_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRLOCK_REQUEST_DATABASE_URL", world.networks.request.url)
    monkeypatch.setenv("AIRLOCK_RESPONSE_DATABASE_URL", world.networks.response.url)
    monkeypatch.setenv("AIRLOCK_REQUEST_TEMPORAL_ADDRESS", "127.0.0.1:1")
    return world


async def airlock(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["quarantine", *arguments]))


async def listed(*arguments: str) -> list[tuple[str, int, int]]:
    result = await airlock("list", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    return [(item["stream"], item["epoch"], item["record"]) for item in json.loads(result.stdout)]


async def test_both_networks_are_listed_and_each_decision_goes_to_the_right_one(known: World) -> None:
    request_id = new_id()
    await known.apply(await cross(known.networks, StreamName.RESULTS, [result_record(request_id), POISON]))
    await known.apply(await cross(known.networks, StreamName.REQUESTS, [POISON, request_record(new_id())]))
    assert await listed() == [("results", 1, 1), ("results", 1, 2), ("requests", 1, 1)]
    assert await listed("--network", "response") == [("requests", 1, 1)]
    assert await listed("--stream", "results") == [("results", 1, 1), ("results", 1, 2)]
    shown = await airlock("show", "results", "1.2")
    assert shown.stdout_bytes == POISON, "exact into a pipe"
    await submit(known.networks, request_id)
    retried = await airlock("retry", "results", "--all", "--json")
    assert retried.exit_code == 1, "one stays"
    assert [item["refused"] is None for item in json.loads(retried.stdout)] == [True, False]
    dropped = await airlock("drop", "requests", "1.1", "--reason", "garbage", "--by", "olga")
    assert (dropped.exit_code, dropped.stdout) == (0, "requests 1.1 dropped by olga\n")
    assert await listed() == [("results", 1, 2)]
    assert await listed("--dropped") == [("requests", 1, 1)]
    assert "garbage" in (await airlock("list", "--dropped")).stdout
    again = await airlock("retry", "requests", "1.1")
    assert again.exit_code == 1
    assert "was dropped by olga: garbage" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("retry", "results"), "or use --all"),
        (("retry", "results", "1.1", "--all"), "or use --all"),
        (("retry", "results", "one"), "write epoch.record"),
        (("drop", "results", "1.99", "--reason", "x"), "record 1.99 of results is not in quarantine"),
        (("drop", "results", "1.1"), "Missing option"),
        (("show", "results", "1.99"), "is not in quarantine; see: airlock quarantine list"),
    ],
)
async def test_what_cannot_be_done_is_one_sentence(known: World, arguments: tuple[str, ...], words: str) -> None:
    result = await airlock(*arguments)
    assert result.exit_code != 0
    assert words in result.stderr
    assert "Traceback" not in result.stderr


def test_what_a_terminal_could_obey_is_shown_as_escapes() -> None:
    text = POISON.decode("utf-8", "backslashreplace") + "\u202e\n"
    assert printable(text) == "\\x1b]0;owned\\x07\\xff torn\\u202e\\n"
    assert printable("Zürich – 東京") == "Zürich – 東京"  # noqa: RUF001
