"""A sealed batch as bytes: what is stored, what crosses, and how it is opened again.

On the wire: the manifest's JSON, a line feed, the signature in base64, a line feed, the payload. The payload is NDJSON,
one record a line, compressed with zstd (RFC 8878).
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import zstandard

from exchange.errors import Malformed, Oversize
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import (
    MAX_MANIFEST_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_RAW_BYTES,
    MAX_RECORDS,
    Manifest,
    hash_of,
    verify_manifest,
)
from models.wording import counted

MEDIA_TYPE = "application/vnd.airlock.batch"
BUNDLE_MEDIA_TYPE = "application/vnd.airlock.batches"
MAX_WIRE_BYTES = MAX_MANIFEST_BYTES + MAX_PAYLOAD_BYTES + 128
COMPRESSION_LEVEL = 3
MAX_WINDOW_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class SealedBatch:
    """A batch as sealed: exactly these bytes cross, at the first try and at every later one."""

    manifest: Manifest
    manifest_bytes: bytes
    signature: bytes
    payload: bytes

    @property
    def hash(self) -> bytes:
        return hash_of(self.manifest_bytes)

    def to_wire(self) -> bytes:
        return to_wire(self.manifest_bytes, self.signature, self.payload)


def to_wire(manifest: bytes, signature: bytes, payload: bytes) -> bytes:
    """The bytes that cross."""
    return b"\n".join((manifest, base64.b64encode(signature), payload))


def to_bundle(wires: Sequence[bytes]) -> bytes:
    """Several batches in one answer: before each the number of its bytes, in decimal digits, and a line feed."""
    return b"".join(part for wire in wires for part in (b"%d\n" % len(wire), wire))


def from_bundle(content: bytes) -> list[bytes]:
    """The batches of one answer, not verified yet. Raises `Malformed`."""
    wires: list[bytes] = []
    place = 0
    while place < len(content):
        end = content.find(b"\n", place, place + 9)
        size = content[place:end] if end > place else b""
        if not size.isdigit() or size[:1] == b"0" or end + 1 + int(size) > len(content):
            raise Malformed("not a bundle of batches: expected the number of bytes, a line feed and so many bytes")
        place = end + 1 + int(size)
        wires.append(content[end + 1 : place])
    return wires


def pack(records: Sequence[bytes]) -> tuple[int, bytes]:
    """Compress records of JSON without line breaks; gives the raw size in bytes and the payload."""
    if len(records) > MAX_RECORDS:
        raise Oversize(f"a batch has {MAX_RECORDS} records at most, not {len(records)}")
    raw = b"\n".join((*records, b""))
    if len(raw) > MAX_RAW_BYTES:
        raise Oversize(f"a batch has {MAX_RAW_BYTES} bytes at most, not {len(raw)}")
    if raw.count(b"\n") != len(records):
        raise Malformed("a record is one line: it must not hold a line feed")
    return len(raw), zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(raw)


def unpack(manifest: Manifest, payload: bytes) -> list[bytes]:
    """The records of a verified batch, as bytes. Never inflates beyond what the manifest says.

    Raises `Malformed` when the payload is not what the manifest says it is.
    """
    if len(payload) != manifest.payload_bytes:
        raise Malformed(f"the payload has {len(payload)} bytes, the manifest says {manifest.payload_bytes}")
    if hashlib.sha256(payload).hexdigest() != manifest.payload_sha256:
        raise Malformed("the payload is not the one that the manifest was made for (SHA-256 differs)")
    raw = _inflate(payload, manifest.raw_bytes)
    if len(raw) != manifest.raw_bytes:
        raise Malformed(f"the records have {len(raw)} bytes or more, the manifest says {manifest.raw_bytes}")
    if raw and not raw.endswith(b"\n"):
        raise Malformed("the last record has no line end: the payload was cut off")
    lines = raw.count(b"\n")  # before there is an object for each of them: they may be millions
    if lines != manifest.count:
        raise Malformed(f"the payload holds {counted(lines, 'record')}, the manifest says {manifest.count}")
    return raw[:-1].split(b"\n") if raw else []


def _inflate(payload: bytes, expected: int) -> bytes:
    """What one whole frame holds, in a buffer of ``expected`` bytes at most. Nothing may stand behind the frame, where
    no reader of the records would ever see it.
    """
    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.window_size > MAX_WINDOW_BYTES:
            raise Malformed(f"the payload wants a window of {frame.window_size} bytes, {MAX_WINDOW_BYTES} are allowed")
        if expected < frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise Malformed(f"the records have {expected + 1} bytes or more, the manifest says {expected}")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"the payload is no zstd frame of {expected} bytes: {error}") from None


def open_wire(keys: LinkKeys, wire: bytes) -> tuple[SealedBatch, list[bytes]]:
    """Verify bytes from the other side, signature first, and give the batch with its records.

    Raises `Oversize`, `Malformed`, `UnsupportedVersion`, `UnknownKey` or `BadSignature`.
    """
    if len(wire) > MAX_WIRE_BYTES:
        raise Oversize(f"a batch has {MAX_WIRE_BYTES} bytes at most on the wire, this one {len(wire)}")
    end = wire.find(b"\n", 0, MAX_MANIFEST_BYTES + 1)
    second = wire.find(b"\n", end + 1, end + 1 + 128)
    if end < 0 or second < 0:
        raise Malformed("not a batch: expected a manifest line, a signature line and a payload")
    manifest_bytes, payload = wire[:end], wire[second + 1 :]
    try:
        signature = base64.b64decode(wire[end + 1 : second], validate=True)
    except binascii.Error:
        raise Malformed("the signature line is not base64") from None
    manifest = verify_manifest(keys, manifest_bytes, signature)
    return SealedBatch(manifest, manifest_bytes, signature, payload), unpack(manifest, payload)
