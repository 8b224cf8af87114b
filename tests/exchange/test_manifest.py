"""Manifests and whole batches from a hostile other side: every way to be wrong is a `LinkError` and nothing else."""

import base64
import hashlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import BadSignature, LinkError, Malformed, Oversize, UnknownKey, UnsupportedVersion
from exchange.wire.batch import open_wire, pack, to_wire
from exchange.wire.manifest import MAX_MANIFEST_BYTES, Manifest, hash_of, sign_manifest, verify_manifest
from models.streams import StreamName
from tests.exchange.pairs import key_pair

SENDER, RECEIVER = key_pair(1)
RECORDS = [b'{"n":1}', b'{"n":2}']
RAW_BYTES, PAYLOAD = pack(RECORDS)


def manifest(**other: Any) -> dict[str, Any]:
    truth = Manifest(
        link="test", stream=StreamName.RESULTS, epoch=1, sequence=1, first_record=1, last_record=2, count=2,
        raw_bytes=RAW_BYTES, payload_bytes=len(PAYLOAD), payload_sha256=hashlib.sha256(PAYLOAD).hexdigest(),
        previous="0" * 64, key_id=SENDER.key_id, sealed_at=datetime(2026, 1, 2, tzinfo=UTC),
    )  # fmt: skip
    return truth.model_dump(mode="json") | other


def signed(content: bytes) -> bytes:
    return SENDER.sign("manifest", content)


def as_bytes(**other: Any) -> bytes:
    return json.dumps(manifest(**other)).encode()


def test_what_was_signed_is_read_back() -> None:
    content, signature = sign_manifest(SENDER, Manifest.model_validate(manifest()))
    read = verify_manifest(RECEIVER, content, signature)
    assert read == Manifest.model_validate(manifest())
    assert len(hash_of(content)) == 32
    batch, records = open_wire(RECEIVER, to_wire(content, signature, PAYLOAD))
    assert (records, batch.hash, batch.to_wire()) == (RECORDS, hash_of(content), to_wire(content, signature, PAYLOAD))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("link", "x" * 64),
        ("link", None),
        ("stream", "secrets"),
        ("epoch", 0),
        ("epoch", 2**31),
        ("epoch", "1"),
        ("sequence", 0),
        ("sequence", 2**63),
        ("sequence", 1.0),
        ("sequence", True),
        ("first_record", -1),
        ("first_record", 2),
        ("last_record", 3),
        ("count", 3),
        ("count", 5001),
        ("part", 0),
        ("part", 2),
        ("parts", 10_001),
        ("raw_bytes", 8 * 1024 * 1024 + 1),
        ("payload_bytes", 2**31),
        ("payload_sha256", "0" * 63),
        ("payload_sha256", "G" * 64),
        ("payload_sha256", "A" * 64),
        ("previous", ""),
        ("sealed_at", "2026-01-02T00:00:00"),
        ("sealed_at", "yesterday"),
        ("more", 1),
    ],
)
def test_a_signed_manifest_with_a_field_that_does_not_fit_is_malformed(field: str, wrong: Any) -> None:
    content = as_bytes(**{field: wrong})
    with pytest.raises(Malformed):
        verify_manifest(RECEIVER, content, signed(content))


@pytest.mark.parametrize("field", sorted(set(manifest()) - {"spec", "part", "parts"}))
def test_a_signed_manifest_without_a_field_is_malformed(field: str) -> None:
    content = json.dumps({name: item for name, item in manifest().items() if name != field}).encode()
    with pytest.raises(Malformed):
        verify_manifest(RECEIVER, content, signed(content))


def test_another_version_is_told_apart_but_only_when_signed() -> None:
    content = as_bytes(spec=2, and_more="of a later version")
    with pytest.raises(UnsupportedVersion):
        verify_manifest(RECEIVER, content, signed(content))
    with pytest.raises(BadSignature):
        verify_manifest(RECEIVER, content, bytes(64))


def test_the_signature_is_checked_before_the_fields() -> None:
    content = as_bytes(epoch=0)
    with pytest.raises(BadSignature):
        verify_manifest(RECEIVER, content, bytes(64))
    unknown = as_bytes(key_id="f" * 16, epoch=0)
    with pytest.raises(UnknownKey):
        verify_manifest(RECEIVER, unknown, signed(unknown))


def test_a_manifest_above_its_bound_is_not_parsed() -> None:
    content = as_bytes(link="x" * MAX_MANIFEST_BYTES)
    with pytest.raises(Malformed, match=f"{MAX_MANIFEST_BYTES} bytes at most"):
        verify_manifest(RECEIVER, content, signed(content))


NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 2**31, 2**63, 2**64, 10**400, -1])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.dictionaries(st.sampled_from([*manifest(), "x"]), JSON, max_size=3)


@given(FIELDS)
@settings(max_examples=150, deadline=None)
def test_signed_fields_of_any_kind_end_in_a_manifest_or_a_link_error(other: dict[str, Any]) -> None:
    content = json.dumps(manifest() | other).encode()
    try:
        read = verify_manifest(RECEIVER, content, signed(content))
    except LinkError:
        return
    assert read.last_record - read.first_record + 1 == read.count


@given(st.binary(max_size=300) | st.text().map(str.encode), st.binary(max_size=80))
@settings(max_examples=300, deadline=None)
def test_bytes_of_any_kind_are_a_link_error(content: bytes, signature: bytes) -> None:
    with pytest.raises(LinkError):
        verify_manifest(RECEIVER, content, signature)
    with pytest.raises(LinkError):
        verify_manifest(RECEIVER, content, signed(content))


@pytest.mark.parametrize("content", [b"[" * 4000, b'{"spec":' * 500, b'{"spec":1,"key_id":"\\ud800"}', b'{"spec":NaN}'])
def test_nonsense_of_a_special_kind_is_a_link_error(content: bytes) -> None:
    with pytest.raises(LinkError):
        verify_manifest(RECEIVER, content, signed(content))


WIRE = to_wire(as_bytes(), signed(as_bytes()), PAYLOAD)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_batch_that_was_changed_anywhere_is_a_link_error(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WIRE)))
    end = data.draw(st.integers(start, min(len(WIRE), start + 40)))
    changed = WIRE[:start] + data.draw(st.binary(max_size=40)) + WIRE[end:]
    if changed == WIRE:
        assert open_wire(RECEIVER, changed)[1] == RECORDS
        return
    with pytest.raises(LinkError):
        open_wire(RECEIVER, changed)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_bytes_of_any_kind_are_no_batch(wire: bytes) -> None:
    with pytest.raises(LinkError):
        open_wire(RECEIVER, wire)


@pytest.mark.parametrize(
    "encoded", [b"", b"====", b"AAAA", base64.b64encode(bytes(63)), base64.b64encode(bytes(65)), b"\xff" * 88]
)
def test_a_signature_of_another_length_is_a_link_error(encoded: bytes) -> None:
    with pytest.raises(LinkError):
        open_wire(RECEIVER, b"\n".join((as_bytes(), encoded, PAYLOAD)))


def test_a_batch_above_its_bound_is_refused_by_its_length_alone() -> None:
    with pytest.raises(Oversize):
        open_wire(RECEIVER, bytes(9 * 1024 * 1024))
