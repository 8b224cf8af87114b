"""Somebody on the wire sends again what it saw, or sends it somewhere else.

A signature serves for one method, target, body, link, direction and five minutes. Within them the same call may come
again: what is stored already changes nothing. Single cases: tests/link/test_signatures.py, test_false_answers.py.
"""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from exchange.errors import BadSignature
from exchange.wire.http_signature import HEADER, HttpSigner
from exchange.wire.messages import Heartbeat, Receipt
from models.streams import StreamName
from storage.database import rows
from tests.conftest import Side
from tests.link.batches import seal
from tests.link.conftest import Crossing

RESULTS, REQUESTS, HEALTH = StreamName.RESULTS, StreamName.REQUESTS, StreamName.HEALTH
BATCHES = "/link/v1/streams/results/batches"


@dataclass(frozen=True)
class Seen:
    """A call as it went over the wire."""

    method: str
    target: str
    signature: str
    body: bytes

    async def again(self, url: str, **other: Any) -> httpx.Response:
        """Send it, with something changed or not."""
        told = {"method": self.method, "target": self.target, "body": self.body} | other
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
            return await http.request(
                told["method"],
                "/",
                content=told["body"],
                headers={HEADER: self.signature},
                extensions={"target": told["target"].encode()},  # as it is: a client would tidy it up
            )


def signed(crossing: Crossing, method: str, target: str, body: bytes = b"") -> Seen:
    return Seen(method, target, crossing.signer().sign_request(method, target, body), body)


async def everything(side: Side) -> dict[str, list[str]]:
    """All rows of a network."""
    async with side.engine.connect() as connection:
        names = [
            name for (name,) in await rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ]
        return {
            name: [text for (text,) in await rows(connection, f"SELECT t::text FROM {name} AS t ORDER BY 1")]
            for name in names
        }


async def test_a_batch_that_comes_again_changes_nothing(crossing: Crossing) -> None:
    seen = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    assert (await seen.again(crossing.url)).status_code == 200
    before = await everything(crossing.networks.request)
    for _ in range(3):
        assert (await seen.again(crossing.url)).status_code == 200
    assert await everything(crossing.networks.request) == before


async def test_an_older_batch_that_comes_again_takes_nothing_back(crossing: Crossing) -> None:
    first = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    second = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    for seen in (first, second):
        assert (await seen.again(crossing.url)).status_code == 200
    before = await everything(crossing.networks.request)
    assert (await first.again(crossing.url)).status_code == 200
    assert await everything(crossing.networks.request) == before


async def test_a_receipt_that_comes_again_delivers_nothing_more(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    first = await crossing.sender(REQUESTS)
    keys = crossing.networks.response.keys
    receipt = Receipt(
        link="test", stream=REQUESTS, epoch=1, received=1, applied=0, head=first.hash.hex(), quarantined=0,
        key_id=keys.key_id,
    )  # fmt: skip
    seen = signed(crossing, "POST", "/link/v1/streams/requests/receipts", receipt.to_wire(keys))
    assert (await seen.again(crossing.url)).status_code == 204
    await seal(crossing.networks.request, REQUESTS, b"{}")
    assert (await seen.again(crossing.url)).status_code == 204
    sender = await crossing.sender(REQUESTS)
    assert (sender.sequence, sender.delivered, sender.stopped) == (2, 1, None)


async def test_a_heartbeat_that_comes_again_is_no_sign_of_life(crossing: Crossing) -> None:
    """Somebody who cut the link could otherwise have it look alive."""
    keys = crossing.networks.response.keys
    target = "/link/v1/streams/results/heartbeats"
    about = {"link": "test", "stream": RESULTS, "epoch": 1, "sequence": 0, "head": "0" * 64, "key_id": keys.key_id}
    first, second = (Heartbeat.model_validate(about).to_wire(keys) for _ in range(2))
    old, newer = signed(crossing, "POST", target, first), signed(crossing, "POST", target, second)
    assert (await old.again(crossing.url)).status_code == 200
    heard = (await crossing.receiver()).heard_at
    assert heard is not None
    assert (await old.again(crossing.url)).status_code == 200
    assert (await crossing.receiver()).heard_at == heard
    assert (await newer.again(crossing.url)).status_code == 200
    later = (await crossing.receiver()).heard_at
    assert later is not None
    assert later > heard
    assert (await old.again(crossing.url)).status_code == 200
    assert (await crossing.receiver()).heard_at == later


async def test_a_receipt_that_comes_again_is_no_sign_of_life(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    head, keys = (await crossing.sender(REQUESTS)).hash.hex(), crossing.networks.response.keys
    about = {
        "link": "test",
        "stream": REQUESTS,
        "epoch": 1,
        "received": 1,
        "applied": 0,
        "head": head,
        "key_id": keys.key_id,
    }
    target = "/link/v1/streams/requests/receipts"
    old, newer = (
        signed(crossing, "POST", target, Receipt.model_validate(about | {"quarantined": count}).to_wire(keys))
        for count in (1, 0)
    )
    for seen, quarantined in ((old, 1), (newer, 0), (old, 0)):
        before = (await crossing.sender(REQUESTS)).receipt_at
        assert (await seen.again(crossing.url)).status_code == 204
        sender = await crossing.sender(REQUESTS)
        assert sender.quarantined == quarantined
        assert (sender.receipt_at == before) == (seen is old and before is not None)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", BATCHES),
        ("GET", BATCHES),
        ("POST", "/link/v1/streams/settings/batches"),
        ("POST", "/link/v1/streams/results/heartbeats"),
        ("POST", "/link/v1/streams/results/restorations"),
        ("POST", "/link/v1/streams/results/repairs"),
        ("POST", BATCHES + "?x=1"),
        ("POST", BATCHES + "%3Fx=1"),
        ("POST", BATCHES + "/"),
        ("POST", "/link/v1/streams/../streams/results/batches"),
        ("POST", "/LINK/v1/streams/results/batches"),
    ],
)
async def test_a_call_that_was_seen_serves_at_no_other_place(crossing: Crossing, method: str, target: str) -> None:
    seen = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    answer = await seen.again(crossing.url, method=method, target=target)
    assert answer.status_code in (401, 404, 405, 422), answer.text
    assert (await crossing.receiver()).sequence == 0


@pytest.mark.parametrize("target", [BATCHES + "?", "/link/v1/streams/%72esults/batches", "http://elsewhere" + BATCHES])
async def test_another_spelling_of_the_same_place_is_the_same_call(crossing: Crossing, target: str) -> None:
    seen = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    for spelling in (target, BATCHES):
        assert (await seen.again(crossing.url, target=spelling)).status_code == 200
    assert (await crossing.receiver()).sequence == 1


async def test_a_question_mark_in_a_path_is_no_query(crossing: Crossing) -> None:
    """Signed is path and query together: what is signed as one may not be read as the other."""
    seen = signed(crossing, "GET", "/link/v1/streams/requests/batches?after=0&wait=0")
    assert (
        await seen.again(crossing.url, target="/link/v1/streams/requests/batches%3Fafter=0&wait=0")
    ).status_code == 404
    seen = signed(crossing, "GET", "/link/v1/streams/results?x=1")
    refused = await seen.again(crossing.url, target="/link/v1/streams/results%3Fx=1")
    assert refused.status_code == 422, "it is no name of a stream"


async def test_a_call_that_was_seen_carries_no_other_body(crossing: Crossing) -> None:
    first = signed(crossing, "POST", BATCHES, await seal(crossing.networks.response, RESULTS, b"{}"))
    second = await seal(crossing.networks.response, RESULTS, b"[]")
    for body in (b"", second, first.body + b"\n", first.body[:-1]):
        assert (await first.again(crossing.url, body=body)).status_code == 401
    assert (await crossing.receiver()).sequence == 0


async def test_after_the_clocks_tolerance_nothing_serves_again(
    crossing: Crossing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signed six minutes ago with a key that is trusted, over a batch that would be accepted."""
    body = await seal(crossing.networks.response, RESULTS, b"{}")
    now = time.time()
    with monkeypatch.context() as earlier:
        earlier.setattr(time, "time", lambda: now - 360)
        seen = signed(crossing, "POST", BATCHES, body)
    refused = await seen.again(crossing.url)
    assert (refused.status_code, refused.json()["type"]) == (401, "urn:airlock:problem:clock-skew")
    assert (await crossing.receiver()).sequence == 0


async def test_an_answer_that_was_seen_answers_no_later_question(crossing: Crossing) -> None:
    signer, target = crossing.signer(), "/link/v1/streams/results"
    first = signed(crossing, "GET", target)
    answer = await first.again(crossing.url)
    signer.verify_response(answer.headers[HEADER], first.signature, 200, answer.content)
    later = signed(crossing, "GET", target)
    with pytest.raises(BadSignature):
        signer.verify_response(answer.headers[HEADER], later.signature, 200, answer.content)


async def test_nothing_of_one_direction_or_purpose_serves_in_another(crossing: Crossing) -> None:
    """What the request network signed, an answer or a batch, is no call to it, and no note is another kind of note."""
    mine, target = HttpSigner(crossing.networks.request.keys, "test"), "/link/v1/streams/results"
    question = signed(crossing, "GET", target)
    answer = await question.again(crossing.url)
    reflected = Seen("GET", target, answer.headers[HEADER], answer.content)
    assert (await reflected.again(crossing.url)).status_code in (401, 403)
    own = Seen("GET", target, mine.sign_request("GET", target, b""), b"")
    assert (await own.again(crossing.url)).status_code == 403
    theirs = await seal(crossing.networks.request, REQUESTS, b"{}")
    sent_back = signed(crossing, "POST", BATCHES, theirs)
    assert (await sent_back.again(crossing.url)).status_code in (400, 401, 403)

    keys = crossing.networks.response.keys
    batch = await seal(crossing.networks.response, RESULTS, b"{}")
    heartbeat = Heartbeat(link="test", stream=RESULTS, epoch=1, sequence=0, head="0" * 64, key_id=keys.key_id)
    receipt = Receipt(
        link="test", stream=RESULTS, epoch=1, received=0, applied=0, head="0" * 64, quarantined=0, key_id=keys.key_id
    )
    wires = {"batches": batch, "heartbeats": heartbeat.to_wire(keys), "receipts": receipt.to_wire(keys)}
    for part in ("batches", "heartbeats"):
        for kind, wire in wires.items():
            if kind != part:
                misused = signed(crossing, "POST", f"/link/v1/streams/results/{part}", wire)
                assert (await misused.again(crossing.url)).status_code in (400, 401), (kind, part)
    sequence = (await crossing.receiver()).sequence
    assert sequence == 0


ODD_NAMES = [
    *("..%2fresults", "%252e%252e%252fresults", "results%00", "results%0d%0a", "results%0aX:%20y", "%ef%bd%92esults"),
    *("r%C3%A9sults", "results;x", "results%20", "x" * 60_000, "results/../results", "results//"),
    *("%c0%ae%c0%ae", "results%252f", "results%2f..%2fresults", "RESULTS", "*", "results,settings"),
]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_of_a_stream_is_one_of_four_words_and_nothing_that_decodes_to_more(
    crossing: Crossing, name: str
) -> None:
    before = await everything(crossing.networks.request)
    for part in ("", "/batches", "/heartbeats"):
        target = f"/link/v1/streams/{name}{part}"
        seen = signed(crossing, "POST", unquote(target), await seal(crossing.networks.response, RESULTS, b"{}"))
        answer = await seen.again(crossing.url, target=target)
        if answer.content:
            assert answer.status_code in (401, 404, 405, 414, 422), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
        else:
            assert answer.status_code in (400, 414), "no HTTP to begin with"
    assert await everything(crossing.networks.request) == before
