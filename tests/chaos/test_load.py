"""The load asks until it is answered, under the same key, and never piles up more than it says."""

import asyncio
import json
import re
from argparse import ArgumentTypeError, Namespace
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from chaos import load
from chaos.ledger import LedgerWriter, read_ledger
from chaos.load import Address, Load
from chaos.workload import submissions
from tests.bench.scripted_server import answer, scripted_server

SEED = 3


def options(port: int, ledger: Path, **changed: object) -> Namespace:
    address = Address("127.0.0.1", port)
    usual = {"url": address, "settings_url": None, "key": "k", "operator_key": "", "patience": 20.0, "polls": 50}
    return Namespace(**{**usual, "seed": SEED, "rate": 50.0, "seconds": 0.4, "ledger": ledger, **changed})


def accepting(body: str, number: int) -> list[bytes]:
    """An answer 202 with an id for each request of the body."""
    asked = json.loads(body)
    ids = [str(UUID(int=1000 * number + place)) for place in range(len(asked) if isinstance(asked, list) else 1)]
    return answer(202, json.dumps({"ids": ids}))


async def test_an_answer_that_is_none_is_asked_for_again_with_the_same_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "AGAIN", (0.0, 0.1))
    asked: dict[str, int] = {}

    def script(number: int, call: str, body: str) -> list[bytes] | None:
        asked[call + body] = asked.get(call + body, 0) + 1
        if asked[call + body] == 1:
            return answer(503, "") if number % 2 else None
        if call.startswith("POST"):
            return accepting(body, number)
        return answer(202, "{}") if asked[call + body] == 2 else answer(200, '{"status": "completed"}')

    path = tmp_path / "ledger"
    async with scripted_server(script) as server:
        writer = LedgerWriter(path)
        assert await Load(options(server.port, path), writer).run() == "done"
        writer.close()
    ledger = read_ledger(path)
    accepted = list(ledger.accepted())
    assert len(accepted) >= 15
    assert set(ledger.results) >= {each.request_id for each in accepted}
    assert ledger.again.keys() == ledger.results.keys()
    assert all(f"\r\nHost: 127.0.0.1:{server.port}\r\n" in head for head in server.heads)
    keys = [found[1] for head in server.heads if (found := re.search(r"Idempotency-Key: (\S+)", head))]
    assert set(keys) == set(ledger.sent)
    assert len(keys) >= 2 * len(set(keys)) - 2, "each was refused once, if not the same words came before"


async def test_so_many_submissions_without_an_answer_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [replace(each, at=0.0) for each in submissions(SEED, 50.0, 1.0) if each.repeat is None]
    monkeypatch.setattr(load, "UNANSWERED", 3)
    monkeypatch.setattr(load, "submissions", lambda *_: iter(asked))
    path = tmp_path / "ledger"

    def script(number: int, call: str, body: str) -> list[bytes]:
        return accepting(body, number) if call.startswith("POST") else answer(404, "{}")

    async with scripted_server(script, held=True) as server:
        writer = LedgerWriter(path)
        running = asyncio.create_task(Load(options(server.port, path), writer).run())
        while server.at_once < 3:  # noqa: ASYNC110, the server tells nobody
            await asyncio.sleep(0.01)
        assert len(read_ledger(path).sent) == 3 < len(asked), "all of which are due"
        server.released.set()
        assert await running == "done"
        writer.close()
    assert len(read_ledger(path).sent) == len(asked)


@pytest.mark.parametrize("url", ["ftp://here", "127.0.0.1:80", "http://", "http://here/below"])
def test_what_is_no_address_is_refused_before_anything_is_written(url: str) -> None:
    with pytest.raises(ArgumentTypeError, match="is no address of an HTTP API"):
        Address.of(url)


def test_an_address_is_taken_apart() -> None:
    assert (Address.of("http://here:81"), Address.of("http://here")) == (("here", 81), ("here", 80))
