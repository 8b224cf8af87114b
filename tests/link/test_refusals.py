"""What the link's endpoints refuse, although it is signed: wrong places, false bytes, forged receipts."""

import asyncio
import hashlib
from typing import Any

import httpx
import pytest
import zstandard

from exchange.errors import Fork
from exchange.wire.batch import MAX_WIRE_BYTES, to_wire
from exchange.wire.http_signature import HEADER
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import Manifest, sign_manifest
from exchange.wire.messages import Heartbeat, Receipt, SignedMessage
from models.streams import StreamName
from tests.link.batches import seal
from tests.link.conftest import Crossing

RESULTS, REQUESTS = StreamName.RESULTS, StreamName.REQUESTS


async def call(crossing: Crossing, method: str, target: str, body: bytes = b"") -> httpx.Response:
    """A call with a valid signature."""
    headers = {HEADER: crossing.signer().sign_request(method, target, body)}
    async with httpx.AsyncClient(base_url=crossing.url, trust_env=False, timeout=30) as http:
        return await http.request(method, target, content=body, headers=headers)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/link/v1/streams/..%2f", 404),
        ("/link/v1/streams/..%2fresults/batches", 404),
        ("/link/v1/streams/%2e%2e/%2e%2e/v1/requests", 404),
        ("/link/v1/streams/results%00", 401),
        ("/link/v1/streams/RESULTS", 422),
        ("/link/v1/streams/secrets", 422),
        ("/link/v1/streams/", 404),
        ("/link/v1/streams/" + "x" * 5000, 422),
        ("/link/v1/streams/requests", 404),
        ("/link/v1/streams/results/batches?after=0", 404),
        ("/link/v1/streams/settings/batches?after=0", 404),
        ("/link/v2/streams/results", 404),
    ],
)
async def test_a_place_that_is_none_is_refused(crossing: Crossing, target: str, status: int) -> None:
    found = await call(crossing, "GET", target)
    assert found.status_code == status, found.text
    assert found.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("part", ["batches", "heartbeats"])
async def test_the_requests_stream_is_not_pushed_here(crossing: Crossing, part: str) -> None:
    found = await call(crossing, "POST", f"/link/v1/streams/requests/{part}", b"{}")
    assert found.status_code == 404


@pytest.mark.parametrize("stream", ["settings", "results", "health"])
async def test_receipts_are_taken_only_for_what_is_pulled(crossing: Crossing, stream: str) -> None:
    assert (await call(crossing, "POST", f"/link/v1/streams/{stream}/receipts", b"{}")).status_code == 404


@pytest.mark.parametrize(
    "query", ["after=-1", "after=x", "wait=0", "after=0&wait=-1", "after=0&wait=61", "after=9" + "9" * 30]
)
async def test_a_poll_out_of_bounds_is_refused(crossing: Crossing, query: str) -> None:
    assert (await call(crossing, "GET", f"/link/v1/streams/requests/batches?{query}")).status_code == 422


async def pushed(crossing: Crossing, body: bytes) -> tuple[int, str]:
    found = await call(crossing, "POST", "/link/v1/streams/results/batches", body)
    assert (await crossing.receiver()).sequence == 0
    return found.status_code, found.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize(
    "body", [b"", b"\n", b"\n\n", b"{}\n\n", b"{}\nAAAA\n", b"\xff" * 5000, b"{" * 4000 + b"\nAA==\n"]
)
async def test_what_is_no_batch_is_refused(crossing: Crossing, body: bytes) -> None:
    status, _ = await pushed(crossing, body)
    assert status in (400, 401, 403)


async def test_a_body_above_the_bound_of_a_batch_is_refused_before_it_is_looked_at(crossing: Crossing) -> None:
    found = await call(crossing, "POST", "/link/v1/streams/results/batches", b"x" * (MAX_WIRE_BYTES + 1))
    assert (found.status_code, found.json()["max_bytes"]) == (413, MAX_WIRE_BYTES)


def lying(crossing: Crossing, raw: bytes, **lies: Any) -> bytes:
    """A validly signed batch with whatever payload and whatever it says of it."""
    keys = crossing.networks.response.keys
    payload = zstandard.compress(raw)
    truth: dict[str, Any] = {
        "link": "test", "stream": "results", "epoch": 1, "sequence": 1, "first_record": 1, "last_record": 1,
        "count": 1, "raw_bytes": len(raw), "payload_bytes": len(payload), "previous": "0" * 64,
        "payload_sha256": hashlib.sha256(payload).hexdigest(), "key_id": keys.key_id,
        "sealed_at": "2026-01-02T03:04:05Z",
    }  # fmt: skip
    content, signature = sign_manifest(keys, Manifest.model_validate(truth | lies))
    return to_wire(content, signature, payload)


async def test_a_payload_that_inflates_beyond_what_it_says_is_refused(crossing: Crossing) -> None:
    bomb = b'"' + b"0" * 50_000_000 + b'"\n'
    body = lying(crossing, bomb, raw_bytes=1000)
    assert len(body) < 100_000
    assert await pushed(crossing, body) == (400, "malformed")


@pytest.mark.parametrize(
    ("raw", "lies", "status"),
    [
        (b"{}\n", {"link": "other"}, 400),
        (b"{}\n", {"stream": "health"}, 400),
        (b"{}\n{}\n", {}, 400),
        (b"{}", {}, 400),
        (b"{}\n", {"raw_bytes": 2}, 400),
        (b"{}\n", {"raw_bytes": 4}, 400),
        (b"{}\n", {"payload_sha256": "0" * 64}, 400),
        (b"{}\n", {"payload_bytes": 5}, 400),
        (b"{}\n", {"epoch": 2}, 422),
        (b"{}\n", {"previous": "1" * 64}, 422),
        (b"{}\n", {"first_record": 2, "last_record": 2}, 422),
        (b"{}\n", {"sequence": 2}, 409),
        (b"{}\n", {"sequence": 2**63 - 1}, 409),
    ],
)
async def test_a_batch_that_lies_about_itself_is_refused(
    crossing: Crossing, raw: bytes, lies: dict[str, Any], status: int
) -> None:
    assert (await pushed(crossing, lying(crossing, raw, **lies)))[0] == status


async def test_a_gap_names_the_batch_that_must_come(crossing: Crossing) -> None:
    await crossing.client.push(RESULTS, await seal(crossing.networks.response, RESULTS, b"{}"))
    await seal(crossing.networks.response, RESULTS, b"{}")
    third = await seal(crossing.networks.response, RESULTS, b"{}")
    found = await call(crossing, "POST", "/link/v1/streams/results/batches", third)
    assert (found.status_code, found.json()["expected"]) == (409, 2)


def message(crossing: Crossing, keys: LinkKeys | None = None, **other: Any) -> bytes:
    signing = keys or crossing.networks.response.keys
    truth: dict[str, Any] = {
        "link": "test", "stream": REQUESTS, "epoch": 1, "received": 1, "applied": 0, "head": "0" * 64,
        "quarantined": 0, "key_id": signing.key_id,
    }  # fmt: skip
    kind: type[SignedMessage] = Heartbeat if "sequence" in other else Receipt
    if kind is Heartbeat:
        truth = {name: content for name, content in truth.items() if name in Heartbeat.model_fields}
    return kind.model_validate(truth | other).to_wire(signing)


async def test_a_forged_receipt_delivers_nothing(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    head = (await crossing.sender(REQUESTS)).hash.hex()
    good = message(crossing, head=head)
    forged = {
        "no receipt": (b"", 400),
        "no signature": (good.split(b"\n")[0], 400),
        "another's signature": (good.split(b"\n")[0] + b"\n" + message(crossing).split(b"\n")[1], 401),
        "the sender's own key": (message(crossing, crossing.networks.request.keys, head=head), 403),
        "another link": (message(crossing, link="other", head=head), 400),
        "another stream": (message(crossing, stream=RESULTS, head=head), 400),
        "a heartbeat": (message(crossing, sequence=1, head=head), 400),
        "negative": (good.replace(b'"received":1', b'"received":-1'), 400),
        "huge": (good.replace(b'"received":1', b'"received":99999999999999999999'), 400),
        "too long": (good + b"A" * 5000, 400),
    }
    for name, (wire, status) in forged.items():
        found = await call(crossing, "POST", "/link/v1/streams/requests/receipts", wire)
        assert found.status_code == status, (name, found.text)
    sender = await crossing.sender(REQUESTS)
    assert (sender.delivered, sender.stopped) == (0, None)
    assert (await call(crossing, "POST", "/link/v1/streams/requests/receipts", good)).status_code == 204
    assert (await crossing.sender(REQUESTS)).delivered == 1


@pytest.mark.parametrize("other", [{"received": 2}, {"head": "1" * 64}, {"epoch": 2}])
async def test_a_receipt_of_another_history_stops_the_stream_and_callers_are_told(
    crossing: Crossing, other: dict[str, Any]
) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    head = (await crossing.sender(REQUESTS)).hash.hex()
    wire = message(crossing, **({"head": head} | other))
    found = await call(crossing, "POST", "/link/v1/streams/requests/receipts", wire)
    assert (found.status_code, found.json()["type"]) == (422, "urn:airlock:problem:fork")
    sender = await crossing.sender(REQUESTS)
    assert sender.stopped
    assert sender.delivered == 0


async def test_an_older_receipt_takes_nothing_back(crossing: Crossing) -> None:
    await seal(crossing.networks.request, REQUESTS, b"{}")
    old = message(crossing, head=(await crossing.sender(REQUESTS)).hash.hex())
    await seal(crossing.networks.request, REQUESTS, b"{}")
    newer = message(crossing, head=(await crossing.sender(REQUESTS)).hash.hex(), received=2, applied=1)
    for wire in (newer, old):
        assert (await call(crossing, "POST", "/link/v1/streams/requests/receipts", wire)).status_code == 204
    sender = await crossing.sender(REQUESTS)
    assert (sender.delivered, sender.applied) == (2, 1)


async def test_a_poll_for_what_was_never_sealed_is_a_fork(crossing: Crossing) -> None:
    with pytest.raises(Fork):
        await crossing.client.pull(REQUESTS, 7, 0)


async def test_who_sends_slowly_holds_up_nobody_else(crossing: Crossing) -> None:
    writers = []
    for _ in range(50):
        _, writer = await asyncio.open_connection("127.0.0.1", int(crossing.url.rsplit(":", 1)[1]))
        writer.write(b"POST /link/v1/streams/results/batches HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
        writers.append(writer)
    await crossing.enqueue(RESULTS, b"{}")
    assert (await crossing.drain()).batches == 1
    for writer in writers:
        writer.close()
