"""Text that strangers wrote reaches no terminal as it is: no command, no log line, no line of `airlock up`."""

import asyncio
import io
import json
import logging
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from temporalio.client import Client
from typer.testing import CliRunner, Result

from cli import output
from cli.errors import fail
from cli.program import app
from configuration.cadences import DEFAULT_CADENCES
from configuration.home import CLONE
from configuration.logs import configure_logs
from embedded.terminal import LogFile, Terminal
from embedded.up import show_addresses
from exchange.carriers.http import LinkClient
from exchange.errors import LinkError, StreamStopped
from exchange.transfer.outgoing import stop_outgoing
from exchange.transfer.quarantine_store import quarantine
from exchange.wire.http_signature import HEADER, HttpSigner
from models.printable import MAX_QUOTED, printable, quoted
from models.streams import BatchRef, StreamName
from monitoring.link_alarms import judge_link
from monitoring.link_watch import classify
from monitoring.measurement_store import settle_alerts, stream_state
from people.users import put_user
from schedules.sync import sync_schedules
from settings.setting_store import put_setting
from storage.database import execute
from tests.activities.crossing import LINK, new_id
from tests.cli.conftest import client, configured, no_home, temporal
from tests.conftest import Networks
from tests.link.false_server import Asked, answering, http_answer

__all__ = ["client", "configured", "no_home", "temporal"]

FORGED = "\nAlerts: none open\n"
ATTACKS = {
    "clipboard": "\x1b]52;c;Y3VybCBldmls\x07",
    "title": "\x1b]0;owned\x1b\\",
    "cursor": "\x1b[2J\x1b[1;1H\x1b[8m",
    "C1": "\x9b2J\x9d52;c;YQ==\x9c",
    "carriage return": "\r\x1b[KAlerts: none open",
    "lines": FORGED + "\x0b\x0c\x85\u2028\u2029",
    "direction": "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c",
    "invisible": "\u200b\u2060\ufeff\u00ad\u034f\u115f\u3164\ufe0f\U000e0041\u180e\u2800",
    "joiners outside Persian": "ad\u200cmin\u200d",
    "others": "\x00\x08\x7f\ufff9\ue000\ud800",
}
HOSTILE = "x".join(ATTACKS.values())
STORABLE = HOSTILE.replace("\0", "").replace("\ud800", "")
"""What PostgreSQL and JSON can hold of it."""
PERSIAN = "می‌خواهم خانه‌ها را ببینم"  # noqa: RUF001
"""Persian with zero width non-joiners, without which it is not right."""


def obeyed(text: str) -> set[str]:
    """The characters of an output that a terminal would obey or not show; our own colours and line ends are none."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    plain = re.sub("(?<=[\u0600-\u06ff])\u200c(?=[\u0600-\u06ff])", "", plain).replace("\n", "")
    return {char for char in plain if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")} | (
        set("\u034f\u115f\u3164\ufe0f\u2800") & set(plain)
    )


def is_clean(text: str) -> bool:
    """Whether nothing is obeyed, and no line is forged."""
    assert not obeyed(text), sorted(map(ascii, obeyed(text)))
    return not any(line.strip().endswith("Alerts: none open") and len(line) < 40 for line in text.splitlines())


@pytest.mark.parametrize("attack", list(ATTACKS))
def test_each_character_that_a_terminal_obeys_is_escaped(attack: str) -> None:
    shown = printable(f"before {ATTACKS[attack]} after")
    assert is_clean(shown)
    assert shown.startswith("before ")
    assert shown.endswith(" after")
    assert "\\" in shown


def test_every_character_of_unicode_is_either_shown_or_escaped() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert not obeyed(printable(everything))


@pytest.mark.parametrize("text", [PERSIAN, "Zürich – 東京", "emoji 🙂", "a\u00a0b", "plain"])  # noqa: RUF001
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_quotation_is_short_and_cannot_leave_its_marks() -> None:
    shown = quoted('" Alerts: none open "' + " " * 500 + "x" * 10_000)
    assert (shown[0], shown[-1], shown.count('"')) == ('"', '"', 2)
    assert len(shown) <= MAX_QUOTED + 3
    assert "  " not in shown


# ---- what prints ----


def printed(capsys: pytest.CaptureFixture[str], work: Callable[[], object]) -> str:
    work()
    return "".join(capsys.readouterr())


PRINTS: dict[str, Callable[[], object]] = {
    "say": lambda: output.say(HOSTILE, colour="red"),
    "say on standard error": lambda: output.say(HOSTILE, err=True),
    "fail": lambda: fail(HOSTILE),
    "table": lambda: output.print_table(HOSTILE, (HOSTILE, "b"), [(HOSTILE, 1), (None, 2)], style="red"),
    "markup": lambda: output.print_table("[red]t[/red]", ("a",), [("[link=http://x]y[/link]",)]),
    "empty table": lambda: output.print_table(HOSTILE, ("a",), [], HOSTILE),
    "JSON": lambda: output.print_json({HOSTILE: [HOSTILE, {"é": PERSIAN}]}),
    "terminal line": lambda: Terminal().line("x", HOSTILE),
    "terminal event": lambda: Terminal().event("x", HOSTILE, bad=True),
    "terminal sentence": lambda: Terminal().say(HOSTILE.replace("\n", " ")),
}


@pytest.mark.parametrize("way", list(PRINTS))
def test_whatever_prints_escapes(way: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, PRINTS[way])
    assert is_clean(shown)
    assert shown.strip()
    if way == "markup":
        assert "[red]t[/red]" in shown
        assert "[link=http://x]" in shown


def test_json_says_the_same_text_and_is_utf8(capsys: pytest.CaptureFixture[str]) -> None:
    content = {"text": HOSTILE, "word": f"{PERSIAN} é"}
    shown = printed(capsys, lambda: output.print_json(content))
    assert json.loads(shown) == content
    assert "می‌خواهم" in printed(capsys, lambda: output.print_json({"word": PERSIAN}))


def test_a_log_file_holds_no_escapes(tmp_path: Path) -> None:
    file = LogFile(tmp_path / "a.log")
    file.write(STORABLE)
    file.close()
    text = (tmp_path / "a.log").read_text()
    assert text.count("\n") == 1
    assert is_clean(text)


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_log_line_is_one_line_without_escapes(form: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    monkeypatch.setattr("threading.excepthook", None)
    stream = io.StringIO()
    configure_logs(form, "INFO", stream)
    structlog.get_logger("a").warning(
        HOSTILE, reason=HOSTILE, more={HOSTILE: [HOSTILE, (HOSTILE,)]}, b=HOSTILE.encode("utf-8", "replace")
    )
    logging.getLogger("b").warning("%s", HOSTILE)
    assert stream.getvalue().count("\n") == 2
    assert is_clean(stream.getvalue())
    try:
        raise StreamStopped(HOSTILE)
    except StreamStopped:
        structlog.get_logger("a").exception("broke")
    assert is_clean(stream.getvalue())


def test_only_these_modules_write_to_a_terminal() -> None:
    """A command that printed in another way would not be escaped."""
    allowed = {"cli/output.py", "embedded/terminal.py", "embedded/child.py", "worker.py", "sample/requests.py"}
    allowed |= {"embedded/up.py", "chaos/load.py"}  # our own addresses; numbers in JSON for the harness
    writes = re.compile(r"(?<![\w.])print\(|typer\.echo\(|\.print\(|secho\(|stdout\.(?:buffer\.)?write|stderr\.write")
    found = set()
    for room in ("cli", "embedded", "sample", "chaos", "api", "activities", "workflows", "exchange", "monitoring"):
        for file in (CLONE / room).rglob("*.py"):
            if writes.search(file.read_text()):
                found.add(str(file.relative_to(CLONE)))
    if writes.search((CLONE / "worker.py").read_text()):
        found.add("worker.py")
    assert found <= allowed


def test_keys_are_shown_to_a_terminal_only(capsys: pytest.CaptureFixture[str]) -> None:
    addresses = SimpleNamespace(
        request_api="http://r", response_api="http://s", namespaces={}, temporal="t", temporal_ui="u", home="h"
    )
    told = vars(addresses) | {
        "redis": "redis://:secret-of-redis@127.0.0.1:1",
        "postgres_port": 5,
        "api_key": "alk_user",
        "operator_key": "alk_operator",
    }
    shown = printed(capsys, lambda: show_addresses(told))
    assert "up.json" in shown
    assert not re.search("alk_|secret-of-redis", shown)


# ---- commands ----


async def airlock(*arguments: str) -> Result:
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(arguments)))


async def poisoned(networks: Networks, temporal: Client) -> None:
    """Hostile text in every place that a command shows."""
    text = STORABLE
    await sync_schedules(temporal, DEFAULT_CADENCES)
    async with networks.response.engine.begin() as connection:
        await settle_alerts(connection, {f"a{text}": f"b{text}"})
        await stop_outgoing(connection, StreamName.RESULTS, text)
        batch = BatchRef(stream=StreamName.REQUESTS, epoch=1, sequence=1)
        await quarantine(connection, batch, [(1, text.encode() + b"\xff", text)])
        await put_user(connection, new_id(), f"u{text}", "user")
        await put_setting(connection, "banner", text, "public", text)
        await execute(
            connection,
            "INSERT INTO link_attempts (stream, tried_at, failing_since, failures, kind, detail)"
            " VALUES ('settings', now(), now() - interval '1 day', 9, 'dead', :text)",
            text=text,
        )
        await execute(
            connection,
            "INSERT INTO link_keys (owner, key_id, public_key, introduced_by)"
            " VALUES ('request', :id, sha256('x'), :id)",
            id=text[:60],
        )


COMMANDS = (
    ("status",),
    ("streams",),
    ("quarantine", "list"),
    ("quarantine", "show", "requests", "1.1", "--json"),
    ("users", "list"),
    ("schedules", "list"),
    ("schedules", "describe", "export-results"),
    ("trace", str(new_id())),
    ("verify",),
    ("keys", "list"),
    ("users", "add-key", f"nobody{STORABLE}"),
    ("stream", "new-epoch", "results", "--reason", "x"),
)


@pytest.mark.parametrize("status", [401, 403, 429, 503, 413, 500])
async def test_no_command_shows_hostile_text_as_it_is(
    configured: Networks, client: Client, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    await poisoned(configured, client)
    body = json.dumps({"detail": "evil " + STORABLE, "type": f"urn:{STORABLE}", "server_time": 5}).encode()
    monkeypatch.setenv("AIRLOCK_RESPONSE_KEYS", str(configured.response.keys_directory))
    await airlock("schedules", "pause", "export-settings", "--note", STORABLE)
    async with answering(lambda _: http_answer(status, body)) as url:
        monkeypatch.setenv("AIRLOCK_RESPONSE_LINK_URL", url)
        shown: dict[tuple[str, ...], str] = {}
        commands = COMMANDS if status == 401 else [("trace", str(new_id()))]
        for command in commands:
            for form in ((), ("--json",)):
                result = await airlock(*command, *form)
                assert is_clean(result.stdout), command
                assert is_clean(result.stderr), command
                assert "Traceback" not in result.stderr
                shown[command] = result.stdout + result.stderr
    if status == 401:
        for command in (("status",), ("users", "list"), ("keys", "list")):
            assert "u001b]52" in shown[command], f"{command} shows it, escaped"
        assert "\ufffd]52" in shown["quarantine", "list"], "a record's reason is cleaned before it is stored"
        assert "none open" not in (await airlock("status")).stdout.splitlines()[0]


@pytest.mark.parametrize(
    "arguments", [("status", STORABLE), (STORABLE,), ("status", f"--{STORABLE}"), ("trace", STORABLE)]
)
async def test_a_usage_error_quotes_arguments_escaped(arguments: tuple[str, ...]) -> None:
    result = await airlock(*arguments)
    assert result.exit_code == 2
    assert is_clean(result.stderr + result.stdout)


# ---- what an unsigned answer says ----


async def refused(networks: Networks, answer: Callable[[Asked], bytes]) -> LinkError:
    async with answering(answer) as url:
        link = LinkClient(url, HttpSigner(networks.response.keys, LINK, 300), 5)
        try:
            with pytest.raises(LinkError) as raised:
                await link.state(StreamName.RESULTS)
        finally:
            await link.aclose()
    return raised.value


@pytest.mark.parametrize("status", [401, 403, 413, 429, 503])
@pytest.mark.parametrize("detail", ["good: Alerts: none open", STORABLE, '"' * 500, "x" * 50_000, 7, None, [STORABLE]])
async def test_what_an_unsigned_answer_says_is_short_quoted_and_marked(
    networks: Networks, status: int, detail: object
) -> None:
    body = json.dumps({"detail": detail, "type": f"urn:{STORABLE}:{'y' * 900}"}).encode()
    error = await refused(networks, lambda _: http_answer(status, body))
    text = str(error)
    assert is_clean(text)
    assert "unsigned" in text.lower()
    assert len(text) < 4 * MAX_QUOTED
    assert '"' in text if isinstance(detail, str) else '"' not in text
    failure = classify(error)
    assert failure.detail == text
    assert is_clean(failure.kind)
    async with networks.response.engine.begin() as connection:
        state = await stream_state(connection, networks.response.network, StreamName.RESULTS)
    state["link"] = {
        "failures": 5,
        "kind": failure.kind,
        "detail": failure.detail,
        "failing_seconds": 9e6,
        "tried_seconds": 1,
        "wait_until": None,
        "clock_ahead": None,
    }
    assert "unsigned" in str(judge_link(state, 60)).lower()


@pytest.mark.parametrize(
    "answer",
    [
        b"Alerts: none open \x1b]52;c;YQ==\x07\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nAlerts: none open\x9b2J\x00: x\r\n\r\n",
        b"HTTP/1.1 200 " + STORABLE.replace("\n", "").encode() + b"\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 X\r\nContent-Length: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_quoted_too(networks: Networks, answer: bytes) -> None:
    text = str(await refused(networks, lambda _: answer))
    assert is_clean(text)
    assert "Alerts" not in text or "unsigned" in text.lower()


@pytest.mark.parametrize("status", [400, 404, 409, 422, 423])
async def test_what_a_signed_refusal_says_is_short_and_printable(networks: Networks, status: int) -> None:
    body = json.dumps({"detail": STORABLE * 50}).encode()
    signer = HttpSigner(networks.request.keys, LINK, 300)

    def answer(asked: Asked) -> bytes:
        return http_answer(status, body, **{HEADER: signer.sign_response(asked.signature, status, body)})

    text = str(await refused(networks, answer))
    assert is_clean(text)
    assert "unsigned" not in text
    assert len(text) < 6000
