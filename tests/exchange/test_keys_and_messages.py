"""Key files, rotation, and the two short signed messages: receipts and heartbeats."""

import base64
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from exchange.errors import BadSignature, LinkError, Malformed, UnknownKey, UnsupportedVersion
from exchange.wire.keys import ensure_link_keys, key_id_of, load_link_keys
from exchange.wire.messages import Heartbeat, Receipt
from models.errors import ConfigurationError
from models.streams import StreamName
from tests.exchange.pairs import key_pair

SENDER, RECEIVER = key_pair(3)


def public_pem(private: Any) -> bytes:
    pem: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def private_pem(private: Any) -> bytes:
    pem: bytes = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def test_made_keys_are_kept_private_and_introduced_to_each_other(tmp_path: Path) -> None:
    ids = ensure_link_keys(tmp_path)
    request, response = load_link_keys(tmp_path / "request"), load_link_keys(tmp_path / "response")
    assert [request.key_id, response.key_id] == list(ids.values())
    assert (list(request.trusted), list(response.trusted)) == ([response.key_id], [request.key_id])
    for network in ("request", "response"):
        assert stat.S_IMODE((tmp_path / network / "signing.pem").stat().st_mode) == 0o600
        assert not (tmp_path / network / "signing.new").exists()
    assert ensure_link_keys(tmp_path) == ids


def test_while_keys_rotate_both_the_old_and_the_new_are_believed(tmp_path: Path) -> None:
    ensure_link_keys(tmp_path)
    old = load_link_keys(tmp_path / "response")
    fresh = Ed25519PrivateKey.generate()
    (tmp_path / "request" / "trusted" / "next.pem").write_bytes(public_pem(fresh))
    (tmp_path / "response" / "signing.pem").write_bytes(private_pem(fresh))
    new = load_link_keys(tmp_path / "response")
    receiver = load_link_keys(tmp_path / "request")
    assert new.key_id == key_id_of(fresh.public_key()) != old.key_id
    for signer in (old, new):
        receiver.verify("manifest", b"x", signer.key_id, signer.sign("manifest", b"x"))
    with pytest.raises(BadSignature):
        receiver.verify("manifest", b"x", new.key_id, old.sign("manifest", b"x"))
    (tmp_path / "request" / "trusted" / f"{old.key_id}.pem").unlink()
    after = load_link_keys(tmp_path / "request")
    with pytest.raises(UnknownKey, match=old.key_id):
        after.verify("manifest", b"x", old.key_id, old.sign("manifest", b"x"))


def test_keys_that_are_missing_or_none_are_named(tmp_path: Path) -> None:
    ensure_link_keys(tmp_path)
    own, trusted = tmp_path / "request" / "signing.pem", tmp_path / "request" / "trusted" / "x.pem"
    good, curve = own.read_bytes(), generate_private_key(SECP256R1())
    encrypted = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for content in (b"", b"no key", b"\xff\x00", private_pem(curve), public_pem(curve), encrypted):
        own.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"signing\.pem"):
            load_link_keys(own.parent)
    own.write_bytes(good)
    for content in (b"", b"no key", public_pem(curve), private_pem(curve)):
        trusted.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"x\.pem"):
            load_link_keys(own.parent)
    for file in trusted.parent.iterdir():
        file.unlink()
    with pytest.raises(ConfigurationError, match="trusted"):
        load_link_keys(own.parent)
    own.unlink()
    with pytest.raises(ConfigurationError, match=r"signing\.pem"):
        load_link_keys(own.parent)


def test_making_keys_over_something_that_is_none_says_so_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "request" / "signing.pem"
    path.parent.mkdir()
    for content in (private_pem(generate_private_key(SECP256R1())), b"no key"):
        path.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"signing\.pem"):
            ensure_link_keys(tmp_path)
        assert path.read_bytes() == content


def receipt(**other: Any) -> Receipt:
    truth: dict[str, Any] = {
        "link": "test", "stream": StreamName.RESULTS, "epoch": 1, "received": 2, "applied": 1, "quarantined": 0,
        "head": "0" * 64, "key_id": SENDER.key_id,
    }  # fmt: skip
    return Receipt.model_validate(truth | other)


def heartbeat() -> Heartbeat:
    return Heartbeat(link="test", stream=StreamName.RESULTS, epoch=1, sequence=2, head="0" * 64, key_id=SENDER.key_id)


def test_a_note_is_read_back_as_it_was_written() -> None:
    assert Receipt.from_wire(RECEIVER, receipt().to_wire(SENDER)).received == 2
    assert Heartbeat.from_wire(RECEIVER, heartbeat().to_wire(SENDER)).sequence == 2


def test_a_note_serves_for_its_own_purpose_only() -> None:
    with pytest.raises(LinkError):
        Receipt.from_wire(RECEIVER, heartbeat().to_wire(SENDER))
    content = receipt().to_wire(SENDER).split(b"\n")[0]
    for purpose in ("heartbeat", "manifest", "request", ""):
        with pytest.raises(BadSignature):
            Receipt.from_wire(RECEIVER, content + b"\n" + base64.b64encode(SENDER.sign(purpose, content)))


def test_a_note_of_a_stranger_or_another_version_is_refused() -> None:
    with pytest.raises(UnknownKey):
        Receipt.from_wire(SENDER, receipt().to_wire(SENDER))
    with pytest.raises(UnsupportedVersion):
        Receipt.from_wire(RECEIVER, receipt(spec=2).to_wire(SENDER))


WIRE = receipt().to_wire(SENDER)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_note_that_was_changed_anywhere_is_refused(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(WIRE)))
    end = data.draw(st.integers(start, min(len(WIRE), start + 30)))
    changed = WIRE[:start] + data.draw(st.binary(max_size=30)) + WIRE[end:]
    if changed == WIRE:
        return
    with pytest.raises(LinkError):
        Receipt.from_wire(RECEIVER, changed)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_any_bytes_are_no_note(wire: bytes) -> None:
    with pytest.raises(LinkError):
        Receipt.from_wire(RECEIVER, wire)
    with pytest.raises(LinkError):
        Heartbeat.from_wire(RECEIVER, wire + b"\n" + base64.b64encode(SENDER.sign("heartbeat", wire)))


def test_a_note_above_its_bound_is_refused() -> None:
    with pytest.raises(Malformed):
        Receipt.from_wire(RECEIVER, b" " * 5000 + WIRE)
