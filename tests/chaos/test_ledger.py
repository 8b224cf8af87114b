import asyncio
import json
import os
from pathlib import Path

import pytest

from chaos.ledger import LedgerWriter, digest, read_ledger
from tests.chaos.ledgers import Written, airport


async def test_what_is_committed_is_on_the_disk_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = LedgerWriter(path)
    ledger.record("begin", seed=1)
    assert path.read_bytes() == b""
    await ledger.committed()
    ledger.record("intended", key="a", body=airport(), refused=False)
    ledger.record("end", reason="done")
    await asyncio.gather(ledger.committed(), ledger.committed())
    assert [json.loads(line)["kind"] for line in path.read_text().splitlines()] == ["begin", "intended", "end"]
    ledger.close()


async def test_a_line_is_synced_before_committed_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda _: synced.append((tmp_path / "ledger").stat().st_size))
    ledger = LedgerWriter(tmp_path / "ledger")
    ledger.record("begin", seed=1)
    await ledger.committed()
    assert synced == [(tmp_path / "ledger").stat().st_size]
    await ledger.committed()
    assert len(synced) == 1
    ledger.close()


async def test_closing_writes_what_was_not_committed(tmp_path: Path) -> None:
    ledger = LedgerWriter(tmp_path / "ledger")
    ledger.record("end", reason="interrupted")
    ledger.close()
    assert read_ledger(tmp_path / "ledger").ended == "interrupted"


def test_a_ledger_is_never_continued(tmp_path: Path) -> None:
    LedgerWriter(tmp_path / "ledger").close()
    with pytest.raises(FileExistsError):
        LedgerWriter(tmp_path / "ledger")


def test_a_torn_last_line_is_passed_over_and_any_other_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    path.write_text('{"at":1,"kind":"begin","seed":3}\n{"at":2,"kind":"e')
    assert read_ledger(path).begin["seed"] == 3
    path.write_text('{"at":1,"kind":"begin","seed":3}\n{"at":2,"kind":"e\n{"at":2,"kind":"end","reason":"done"}\n')
    with pytest.raises(ValueError, match="line 2"):
        read_ledger(path)
    path.write_text('{"at":1,"kind":"unheard-of"}\n')
    with pytest.raises(ValueError, match="unheard-of"):
        read_ledger(path)


def test_the_last_accepted_value_of_a_setting_counts_and_what_came_after_it_is_doubtful(tmp_path: Path) -> None:
    written = Written(tmp_path / "ledger")
    for value, accepted in ((1, True), (2, True), (3, False)):
        written.line("setting-intended", name="a", value=value, visibility="public")
        if accepted:
            written.line("setting-accepted", name="a", value=value, visibility="public")
    setting = written.read().settings["a"]
    assert (setting.accepted, setting.accepted_changes, setting.doubtful) == (2, 2, [3])


def test_a_digest_tells_results_apart_and_not_where_they_were_read() -> None:
    body = {"request_id": "1", "data": [{"a": 1, "b": 2.5}], "source": "cache"}
    assert digest(body) == digest({"source": "database", "data": [{"b": 2.5, "a": 1}], "request_id": "1"})
    assert digest(body) != digest(body | {"data": [{"a": 1, "b": 2.6}]})
