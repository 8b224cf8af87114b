"""Makes `docs/vectors`: messages of the link as bytes, right ones and wrong ones, for whoever writes a peer.

Run ``python -m tests.protocol.vectors`` from the repository's root after a change of the protocol. Keys, times and
nonces are fixed, so the same files come out each time.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zstandard

from exchange.wire import http_signature
from exchange.wire.batch import pack, to_wire
from exchange.wire.http_signature import HttpSigner
from exchange.wire.keys import DOMAIN, LinkKeys
from exchange.wire.manifest import Manifest, hash_of
from exchange.wire.messages import Heartbeat, Receipt
from models.streams import StreamName
from tests.exchange.pairs import key_pair

DIRECTORY = Path(__file__).parents[2] / "docs" / "vectors"
LINK = "vectors"
RESPONSE, REQUEST = key_pair(42)
"""The response network's keys, and the request network's: each trusts the other's."""
STRANGER, _ = key_pair(43)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MOMENT = int(AT.timestamp())
Vector = dict[str, Any]


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def signed(keys: LinkKeys, purpose: str, message: bytes) -> bytes:
    """The signature over any bytes, also such as Airlock itself would not sign."""
    return keys.signing.sign(DOMAIN + purpose.encode() + b"\n" + message)


def manifest(records: list[bytes], **other: Any) -> Vector:
    """The fields of a manifest for these records, with others put in their place."""
    raw_bytes, payload = pack(records)
    first = other.pop("first_record", 1)
    truth = Manifest(
        link=LINK, stream=StreamName.RESULTS, epoch=1, sequence=other.pop("sequence", 1), first_record=first,
        last_record=first + len(records) - 1, count=len(records), raw_bytes=raw_bytes, payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(), previous=other.pop("previous", "0" * 64),
        key_id=RESPONSE.key_id, sealed_at=AT,
    )  # fmt: skip
    return truth.model_dump(mode="json") | other


def compact(fields: Vector) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


RECORDS = [b'{"request_id":"1","status":"completed"}', '{"city":"İstanbul"}'.encode(), b"{}"]
PAYLOAD = pack(RECORDS)[1]


def manifests() -> Iterator[Vector]:
    """What a batch says of itself, and the signature over exactly these bytes."""

    def case(name: str, content: bytes, error: str | None, signature: bytes | None = None) -> Vector:
        signature = signed(RESPONSE, "manifest", content) if signature is None else signature
        return {
            "name": name, "manifest": b64(content), "signature": b64(signature), "hash": hash_of(content).hex(),
            "error": error,
        }  # fmt: skip

    good = compact(manifest(RECORDS))
    yield case("as Airlock writes it", good, None)
    yield case("other white space is other bytes, and as good", json.dumps(manifest(RECORDS)).encode(), None)
    yield case("an empty batch", compact(manifest([])), None)
    yield case("the largest numbers", compact(manifest([], sequence=2**63 - 1, first_record=2**63 - 1)), None)
    yield case("a space added after signing", good + b" ", "bad-signature", signed(RESPONSE, "manifest", good))
    yield case("signed for another purpose", good, "bad-signature", signed(RESPONSE, "receipt", good))
    yield case("signed without the domain", good, "bad-signature", RESPONSE.signing.sign(good))
    yield case("signed by another key than it names", good, "bad-signature", signed(STRANGER, "manifest", good))
    yield case("no signature", good, "bad-signature", bytes(64))
    yield case("an unknown key", compact(manifest(RECORDS, key_id=STRANGER.key_id)), "unknown-key")
    later = compact(manifest(RECORDS, spec=2, shape="of a later version"))
    yield case("a later version", later, "unsupported-version")
    yield case("a later version, not signed", later, "bad-signature", bytes(64))
    yield case("not JSON", b"manifest", "malformed")
    yield case("no object", b"[]", "malformed")
    for field, wrong in {
        "sequence": 0, "epoch": 0, "first_record": "1", "count": 2, "part": 2, "raw_bytes": 8 * 1024 * 1024 + 1,
        "payload_sha256": "AB" * 32, "previous": "0" * 63, "stream": "secrets", "sealed_at": "2026-01-02T03:04:05",
        "link": "x" * 64, "more": True,
    }.items():  # fmt: skip
        yield case(f"a wrong {field}", compact(manifest(RECORDS) | {field: wrong}), "malformed")
    short = manifest(RECORDS)
    del short["previous"]
    yield case("a field too few", compact(short), "malformed")
    yield case("more than 4096 bytes", good + b" " * 4096, "malformed")


def batches() -> Iterator[Vector]:
    """Whole batches as they cross."""

    def case(name: str, wire: bytes, error: str | None) -> Vector:
        records = None if error else [record.decode() for record in RECORDS]
        return {"name": name, "wire": b64(wire), "records": records, "error": error}

    def about(payload: bytes, **other: Any) -> bytes:
        """A rightly signed batch with this payload, whatever it is."""
        truth = {"payload_bytes": len(payload), "payload_sha256": hashlib.sha256(payload).hexdigest()}
        content = compact(manifest(RECORDS) | truth | other)
        return to_wire(content, signed(RESPONSE, "manifest", content), payload)

    good = about(PAYLOAD)
    yield case("as Airlock writes it", good, None)
    yield case("one byte of the payload changed", good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], "malformed")
    yield case("cut off", good[:-1], "malformed")
    yield case("a byte more", good + b"\n", "malformed")
    yield case("no payload line", good.split(b"\n")[0], "malformed")
    content = compact(manifest(RECORDS))
    yield case("a signature that is no base64", b"\n".join((content, b"!" * 88, PAYLOAD)), "malformed")
    yield case("a signature that is too short", to_wire(content, bytes(63), PAYLOAD), "bad-signature")
    yield case("no zstd", about(b"\n".join(RECORDS)), "malformed")
    yield case("bytes after the frame", about(PAYLOAD + b"more"), "malformed")
    frames = b"".join(zstandard.compress(record + b"\n") for record in RECORDS)
    yield case("several frames", about(frames), "malformed")
    yield case("inflates to more than it says", about(zstandard.compress(bytes(1_000_000))), "malformed")
    raw = b"\n".join(RECORDS)
    yield case("no line feed at the end", about(zstandard.compress(raw), raw_bytes=len(raw)), "malformed")
    yield case("another count", about(PAYLOAD, count=4, last_record=4), "malformed")


def chain() -> Iterator[Vector]:
    """Batches in the order in which they come to one receiver, which has nothing yet, and what becomes of each."""

    def batch(sequence: int, records: list[bytes], previous: bytes, first: int) -> tuple[bytes, bytes]:
        content = compact(manifest(records, sequence=sequence, previous=previous.hex(), first_record=first))
        return to_wire(content, signed(RESPONSE, "manifest", content), pack(records)[1]), hash_of(content)

    one, hash_1 = batch(1, [b'{"n":1}', b'{"n":2}'], bytes(32), 1)
    two, hash_2 = batch(2, [b'{"n":3}'], hash_1, 3)
    three, hash_3 = batch(3, [b'{"n":4}'], hash_2, 4)
    other_two, hash_other = batch(2, [b'{"n":"other"}'], hash_1, 3)
    after_other, _ = batch(3, [b'{"n":4}'], hash_other, 4)
    wrong_record, _ = batch(3, [b'{"n":4}'], hash_2, 5)
    yield {"name": "the first", "wire": b64(one), "becomes": "stored", "head": hash_1.hex(), "received": 1}
    yield {"name": "the third: one is missing", "wire": b64(three), "becomes": "gap", "expected": 2}
    yield {"name": "the first again", "wire": b64(one), "becomes": "repeated", "head": hash_1.hex(), "received": 1}
    yield {"name": "the second", "wire": b64(two), "becomes": "stored", "head": hash_2.hex(), "received": 2}
    forks = {
        "another second": other_two,
        "a third that follows another second": after_other,
        "a third that skips a record": wrong_record,
    }
    for name, wire in forks.items():
        yield {"name": name, "wire": b64(wire), "becomes": "fork"}
    yield {"name": "the third", "wire": b64(three), "becomes": "stored", "head": hash_3.hex(), "received": 3}


def receipts() -> Iterator[Vector]:
    """What the receiver answers."""
    truth = Receipt(
        link=LINK, stream=StreamName.RESULTS, epoch=1, received=3, applied=2, quarantined=1, head="ab" * 32,
        key_id=REQUEST.key_id, issued_at=AT,
    )  # fmt: skip
    yield from _notes("receipt", REQUEST, truth.model_dump(mode="json"), {"received": -1, "applied": "2"})


def heartbeats() -> Iterator[Vector]:
    """What the sender says when nothing is new."""
    truth = Heartbeat(
        link=LINK, stream=StreamName.RESULTS, epoch=1, sequence=3, head="ab" * 32, key_id=RESPONSE.key_id, issued_at=AT
    )
    yield from _notes("heartbeat", RESPONSE, truth.model_dump(mode="json"), {"sequence": 2**63})


def _notes(purpose: str, keys: LinkKeys, truth: Vector, wrong: Vector) -> Iterator[Vector]:
    def case(name: str, content: bytes, error: str | None, signature: bytes | None = None) -> Vector:
        encoded = base64.b64encode(signed(keys, purpose, content) if signature is None else signature)
        return {"name": name, "wire": b64(content + b"\n" + encoded), "error": error}

    good = compact(truth)
    other = "heartbeat" if purpose == "receipt" else "receipt"
    yield case("as Airlock writes it", good, None)
    yield case("changed after signing", good + b" ", "bad-signature", signed(keys, purpose, good))
    yield case("signed for another purpose", good, "bad-signature", signed(keys, other, good))
    yield case("an unknown key", compact(truth | {"key_id": STRANGER.key_id}), "unknown-key")
    yield case("a later version", compact(truth | {"spec": 2}), "unsupported-version")
    for field, value in (wrong | {"epoch": 0, "head": "AB" * 32, "stream": "secrets", "more": 1}).items():
        yield case(f"a wrong {field}", compact(truth | {field: value}), "malformed")
    yield {"name": "no signature line", "wire": b64(good), "error": "malformed"}


def requests() -> Iterator[Vector]:
    """The header of a call, as the one who is called checks it at the Unix time ``at``."""
    target, body = "/link/v1/streams/results/batches", b"any body"

    def case(name: str, error: str | None, *, at: int = MOMENT, keys: LinkKeys = RESPONSE, **other: Any) -> Vector:
        call: Vector = {"method": "POST", "target": target, "body": body, "link": LINK}
        with _fixed():
            header = HttpSigner(keys, LINK).sign_request("POST", target, body)
        call |= {"header": header} | other
        return {"name": name, **call, "body": b64(call["body"]), "at": at, "clock_skew": 300, "error": error}

    yield case("as Airlock writes it", None)
    yield case("300 seconds later", None, at=MOMENT + 300)
    yield case("301 seconds later", "clock-skew", at=MOMENT + 301)
    yield case("301 seconds before", "clock-skew", at=MOMENT - 301)
    yield case("another method", "bad-signature", method="PUT")
    yield case("another target", "bad-signature", target=target + "?after=1")
    yield case("another body", "bad-signature", body=body + b" ")
    yield case("another link", "bad-signature", link="other")
    yield case("an unknown key", "unknown-key", keys=STRANGER)
    with _fixed():
        header = HttpSigner(RESPONSE, LINK).sign_request("POST", target, body)
    yield case("another time", "bad-signature", header=header.replace(str(MOMENT), str(MOMENT + 1)))
    yield case("no header", "bad-signature", header="")
    yield case("a space too many", "bad-signature", header=header + " ")


def responses() -> Iterator[Vector]:
    """The header of an answer, as the one who asked checks it."""
    body = b'{"detail":"any"}'
    with _fixed():
        asked = HttpSigner(RESPONSE, LINK).sign_request("GET", "/link/v1/streams/results", b"")
        header = HttpSigner(REQUEST, LINK).sign_response(asked, 200, body)

    def case(name: str, error: str | None, **other: Any) -> Vector:
        answer: Vector = {"request_header": asked, "status": 200, "body": body, "header": header, "link": LINK} | other
        return {"name": name, **answer, "body": b64(answer["body"]), "at": MOMENT, "clock_skew": 300, "error": error}

    yield case("as Airlock writes it", None)
    yield case("another status", "bad-signature", status=422)
    yield case("another body", "bad-signature", body=b"{}")
    yield case("the answer to another question", "bad-signature", request_header=asked.replace("nonce=0", "nonce=1"))
    yield case("the question's own header", "unknown-key", header=asked)


@contextmanager
def _fixed() -> Iterator[None]:
    """One time and one nonce."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(http_signature, "time", SimpleNamespace(time=lambda: float(MOMENT)))
        patch.setattr(
            http_signature, "secrets", SimpleNamespace(token_hex=lambda size: "0123456789abcdef" * (size // 8))
        )
        yield


def keys() -> Iterator[Vector]:
    """The keys: Ed25519 seeds, public keys, and the ids made of these. The stranger's key nobody trusts."""
    for name, pair in (("response", RESPONSE), ("request", REQUEST), ("stranger", STRANGER)):
        public = pair.signing.public_key().public_bytes_raw()
        yield {
            "name": name, "seed": pair.signing.private_bytes_raw().hex(), "public": public.hex(), "key_id": pair.key_id
        }  # fmt: skip


FILES: dict[str, Callable[[], Iterator[Vector]]] = {
    "keys": keys, "manifests": manifests, "batches": batches, "chain": chain, "receipts": receipts,
    "heartbeats": heartbeats, "requests": requests, "responses": responses,
}  # fmt: skip


def content_of(name: str) -> bytes:
    """A file's bytes."""
    about = " ".join((FILES[name].__doc__ or "").split())
    vectors = list(FILES[name]())
    return json.dumps({"about": about, "vectors": vectors}, indent=1, ensure_ascii=False).encode() + b"\n"


def write(directory: Path) -> None:
    """Write every file anew."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        (directory / f"{name}.json").write_bytes(content_of(name))


if __name__ == "__main__":
    write(DIRECTORY)
