"""Whatever comes over the link from a hostile or broken peer is refused with a `LinkError`, in bounded time and memory.

Every parser is given bytes of any kind, right messages that were changed, and messages that are rightly signed and
nonsense: a captured peer has the key.
"""

import base64
import hashlib
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from exchange.audit.summaries import Audit, Orphans, RangeDigest, Repaired, RepairOrder, StreamHead, SummaryQuestion
from exchange.errors import LinkError, Malformed
from exchange.recovery.remote_side import _parsed
from exchange.wire.batch import open_wire, to_wire
from exchange.wire.http_signature import HttpSigner
from exchange.wire.manifest import verify_manifest
from exchange.wire.messages import EpochOrder, Heartbeat, Receipt
from models.streams import StreamName
from tests.protocol.vectors import PAYLOAD, RECORDS, REQUEST, RESPONSE, compact, content_of, manifest, signed

FUZZ = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
MEGABYTE = 1_000_000

MANIFEST = compact(manifest(RECORDS))
WIRE = to_wire(MANIFEST, signed(RESPONSE, "manifest", MANIFEST), PAYLOAD)


def _first(name: str) -> bytes:
    return base64.b64decode(json.loads(content_of(name))["vectors"][0]["wire"])


RECEIPT, HEARTBEAT = _first("receipts"), _first("heartbeats")
ORDER = EpochOrder(
    link="vectors",
    stream=StreamName.RESULTS,
    epoch=2,
    head="0" * 64,
    key_id=RESPONSE.key_id,
    issued_at=datetime(2026, 11, 22, tzinfo=UTC),
    previous_epoch=1,
    previous_sequence=0,
    reason="a restored backup",
    ordered_by="operator",
).to_wire(RESPONSE)
PARSERS: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
    "batch": (WIRE, lambda wire: open_wire(REQUEST, wire)[1]),
    "receipt": (RECEIPT, lambda wire: Receipt.from_wire(RESPONSE, wire)),
    "heartbeat": (HEARTBEAT, lambda wire: Heartbeat.from_wire(REQUEST, wire)),
    "epoch-order": (ORDER, lambda wire: EpochOrder.from_wire(REQUEST, wire)),
}
SIGNED_PARSERS: dict[str, Callable[[bytes], object]] = {
    "manifest": lambda content: verify_manifest(REQUEST, content, signed(RESPONSE, "manifest", content)),
    "receipt": lambda content: Receipt.from_wire(RESPONSE, _note(content, "receipt")),
    "heartbeat": lambda content: Heartbeat.from_wire(REQUEST, _note(content, "heartbeat")),
    "epoch-order": lambda content: EpochOrder.from_wire(REQUEST, _note(content, "epoch-order")),
}
SUMMARIES: list[type[BaseModel]] = [Audit, Repaired, RangeDigest, RepairOrder, StreamHead, Orphans, SummaryQuestion]


def _note(content: bytes, purpose: str) -> bytes:
    keys = REQUEST if purpose == "receipt" else RESPONSE
    return content + b"\n" + base64.b64encode(signed(keys, purpose, content))


@st.composite
def changed(draw: st.DrawFn, right: bytes) -> bytes:
    """The right bytes with pieces replaced, doubled, swapped or left out."""
    wire = right
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(wire)))
        end = min(len(wire), start + draw(st.integers(0, 40)))
        piece = draw(
            st.binary(max_size=20) | st.sampled_from([wire[start:end] * 2, b"", b"\n", b"\0", b'"', wire[:30]])
        )
        wire = wire[:start] + piece + wire[end:]
    return wire


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


ODD_VALUES = st.sampled_from(
    [
        "NaN", "Infinity", "-Infinity", "1e400", "1.0", "1e0", "-0", "0x1", "01", "9" * 400, "-" + "9" * 400, "true",
        "null", '"\\ud800"', '"\\udc00\\ud800"', '"\\u0000"', '"1"', "[]", "{}", nested(200), nested(1500),
        '{"a":' * 150 + "1" + "}" * 150, '"' + "x" * 3000 + '"', str(2**63), str(2**64), str(-(2**63)),
    ]
)  # fmt: skip
"""Spelled as JSON, or as what some parsers take for it."""


@st.composite
def odd_json(draw: st.DrawFn, right: bytes) -> bytes:
    """A right message's fields with odd values, and some of them twice."""
    members = [(json.dumps(name), json.dumps(value)) for name, value in json.loads(right).items()]
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(members) - 1))
        name = draw(st.sampled_from([members[place][0], '"\\ud800"', '"__proto__"', '""']))
        members.insert(draw(st.integers(0, len(members))), (name, draw(ODD_VALUES)))
        if draw(st.booleans()):
            members.pop(place)
    text = "{" + ",".join(f"{name}:{value}" for name, value in members) + "}"
    return text.encode() + draw(st.sampled_from([b"", b" ", b"\0", b"}", b"\xff", b"\xed\xa0\x80", b"{}"]))


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@FUZZ
def test_a_message_that_was_changed_is_refused_or_has_the_signed_bytes(name: str, data: st.DataObject) -> None:
    right, parse = PARSERS[name]
    wire = data.draw(changed(right))
    try:
        parse(wire)
    except LinkError:
        return
    assert wire == right, "what is accepted must be, byte for byte, what was signed"


@pytest.mark.parametrize("name", PARSERS)
@given(wire=st.binary(max_size=600) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "surrogatepass")))
@FUZZ
def test_bytes_of_any_kind_are_refused(name: str, wire: bytes) -> None:
    with pytest.raises(LinkError):
        PARSERS[name][1](wire)


@pytest.mark.parametrize("name", SIGNED_PARSERS)
@given(data=st.data())
@FUZZ
def test_signed_nonsense_is_refused_with_a_link_error_or_read_as_whole_numbers(name: str, data: st.DataObject) -> None:
    right = MANIFEST if name == "manifest" else PARSERS[name][0].split(b"\n")[0]
    content = data.draw(odd_json(right) | changed(right))
    try:
        read = SIGNED_PARSERS[name](content)
    except LinkError:
        return
    assert isinstance(read, BaseModel)
    for field, value in read.model_dump().items():
        assert not isinstance(value, float), f"{field} must never be read as a fraction"
        assert not isinstance(value, int) or 0 <= value < 2**63, f"{field} must fit the database"


@pytest.mark.parametrize("wanted", SUMMARIES)
@given(data=st.data())
@FUZZ
def test_an_answer_about_a_stream_is_parsed_or_malformed(wanted: type[BaseModel], data: st.DataObject) -> None:
    right = json.dumps({name: 1 for name in wanted.model_fields}).encode()
    content = data.draw(odd_json(right) | changed(right) | st.binary(max_size=200))
    try:
        read = _parsed(content, wanted)
    except Malformed:
        return
    for field, value in read.model_dump().items():
        assert not isinstance(value, int) or 0 <= value < 2**63, f"{field} must fit the database"


@pytest.mark.parametrize("wanted", SUMMARIES)
@pytest.mark.parametrize("content", [b"[" * MEGABYTE, b'{"a":' * 200_000, b"9" * MEGABYTE, b'"' + b"\\" * MEGABYTE])
def test_deep_or_huge_json_is_malformed_in_bounded_memory(wanted: type[BaseModel], content: bytes) -> None:
    with pytest.raises(ValidationError), _little_memory():
        wanted.model_validate_json(content)


SIGNER = HttpSigner(RESPONSE, "vectors")
VERIFIER = HttpSigner(REQUEST, "vectors")
HEADER = SIGNER.sign_request("POST", "/x", b"body")
ANSWER = VERIFIER.sign_response(HEADER, 200, b"answer")


@given(header=changed(HEADER.encode()).map(lambda content: content.decode("latin-1")) | st.text(max_size=250))
@FUZZ
def test_a_header_that_was_changed_is_refused(header: str) -> None:
    if header != HEADER:
        with pytest.raises(LinkError):
            VERIFIER.verify_request(header, "POST", "/x", b"body")


@given(header=changed(ANSWER.encode()).map(lambda content: content.decode("latin-1")) | st.text(max_size=250))
@FUZZ
def test_an_answers_header_that_was_changed_is_refused(header: str) -> None:
    if header != ANSWER:
        with pytest.raises(LinkError):
            SIGNER.verify_response(header, HEADER, 200, b"answer")


@given(
    time=st.text("0123456789\u0663\u0966", min_size=1, max_size=13), tail=st.sampled_from(["", "\n", "\r\n", " ", "\0"])
)
@FUZZ
def test_digits_of_other_scripts_and_line_ends_are_no_part_of_a_header(time: str, tail: str) -> None:
    header = HEADER.replace(HEADER.split("; ")[1], f"time={time}") + tail
    if header != HEADER:
        with pytest.raises(LinkError):
            VERIFIER.verify_request(header, "POST", "/x", b"body")


def about(payload: bytes, **other: Any) -> bytes:
    """A rightly signed batch with this payload."""
    truth = {"payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
    content = compact(manifest(RECORDS) | truth | other)
    return to_wire(content, signed(RESPONSE, "manifest", content), payload)


def _without_size(content: bytes) -> bytes:
    """A frame that does not say how much it holds."""
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    return compressor.compress(content)


BOMB = bytes(300 * MEGABYTE)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (zstandard.compress(BOMB), {}),
        (_without_size(BOMB), {}),
        (zstandard.compress(BOMB), {"raw_bytes": 8 * 1024 * 1024}),
        (_without_size(BOMB), {"raw_bytes": 8 * 1024 * 1024}),
        (PAYLOAD, {"raw_bytes": 8 * 1024 * 1024, "count": 5000, "last_record": 5000}),
        (zstandard.compress(b"{}\n"), {"raw_bytes": 8 * 1024 * 1024}),
        (b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + b"\x01\x00\x00", {"raw_bytes": 8 * 1024 * 1024}),
        (zstandard.compress(b"\n" * (8 * 1024 * 1024)), {"raw_bytes": 8 * 1024 * 1024}),
    ],
    ids=["bomb", "bomb without size", "bomb, large claim", "bomb without size, large claim", "large claim",
         "large claim, small frame", "a frame that claims 2^64 bytes", "millions of empty records"],
)  # fmt: skip
def test_a_decompression_bomb_takes_no_more_memory_than_a_batch_may(payload: bytes, says: dict[str, Any]) -> None:
    wire = about(payload, **says)
    with pytest.raises(LinkError), _little_memory():
        open_wire(REQUEST, wire)


@given(data=st.data())
@FUZZ
def test_a_signed_payload_of_any_kind_is_its_records_or_refused(data: st.DataObject) -> None:
    payload = data.draw(changed(PAYLOAD) | st.binary(max_size=300))
    try:
        _, records = open_wire(REQUEST, about(payload))
    except LinkError:
        return
    assert len(records) == len(RECORDS), "as many records as the manifest says, or none"
    assert sum(len(record) + 1 for record in records) == manifest(RECORDS)["raw_bytes"], "and as many bytes"


@pytest.mark.parametrize(
    "tail", [b"\0", b"more", zstandard.compress(b""), PAYLOAD, b"\x50\x2a\x4d\x18\x04\x00\x00\x00hide"]
)
def test_nothing_hides_behind_the_frame(tail: bytes) -> None:
    """Not bytes, not an empty frame, not another whole one, not one that readers skip."""
    with pytest.raises(Malformed):
        open_wire(REQUEST, about(PAYLOAD + tail))


@pytest.mark.parametrize("length", range(len(PAYLOAD)))
def test_a_frame_that_ends_early_is_malformed(length: int) -> None:
    with pytest.raises(Malformed):
        open_wire(REQUEST, about(PAYLOAD[:length]))


class _little_memory:
    """The block takes so many bytes of Python's memory at most."""

    def __init__(self, most: int = 60 * MEGABYTE) -> None:
        self._most = most

    def __enter__(self) -> None:
        tracemalloc.start()

    def __exit__(self, *_error: object) -> None:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < self._most, f"{most / MEGABYTE:.0f} MB were taken"
