"""The bytes of a sealed batch: packing, the wire format, verifying and unpacking.

On the wire: the manifest's JSON, a line feed, the signature in base64, a line feed, the payload. The payload is NDJSON,
one record per line, compressed with zstd (RFC 8878).
"""

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
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
    """A sealed batch. Every attempt to deliver it sends exactly these bytes."""

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
    """Join batches into one answer. Before each stand its size in bytes, as decimal digits, and a line feed."""
    return b"".join(part for wire in wires for part in (b"%d\n" % len(wire), wire))


def from_bundle(content: bytes, most: int) -> list[bytes]:
    """Split an answer into at most ``most`` batches, which are not verified yet. Raises `Malformed`."""
    wires: list[bytes] = []
    place = 0
    while place < len(content):
        if len(wires) == most:
            raise Malformed(f"the answer has more than {counted(most, 'batch')}, and no more were asked for")
        end = content.find(b"\n", place, place + 9)
        size = content[place:end] if end > place else b""
        if not size.isdigit() or size[:1] == b"0" or end + 1 + int(size) > len(content):
            raise Malformed("not a bundle of batches: expected the number of bytes, a line feed and so many bytes")
        place = end + 1 + int(size)
        wires.append(content[end + 1 : place])
    return wires


def pack(records: Sequence[bytes]) -> tuple[int, bytes]:
    """Compress JSON records. Returns the raw size in bytes and the payload. Raises `Oversize` or `Malformed`."""
    if len(records) > MAX_RECORDS:
        raise Oversize(f"a batch has {MAX_RECORDS} records at most, not {len(records)}")
    raw = b"\n".join((*records, b""))
    if len(raw) > MAX_RAW_BYTES:
        raise Oversize(f"a batch has {MAX_RAW_BYTES} bytes at most, not {len(raw)}")
    if raw.count(b"\n") != len(records):
        raise Malformed("a record is one line: it must not hold a line feed")
    return len(raw), zstandard.ZstdCompressor(level=COMPRESSION_LEVEL).compress(raw)


def unpack(manifest: Manifest, payload: bytes) -> list[bytes]:
    """The records of a verified batch. Never decompresses more bytes than the manifest states.

    Raises `Malformed` when the payload does not match the manifest.
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
    lines = raw.count(b"\n")  # counted before splitting: a hostile payload may hold millions
    if lines != manifest.count:
        raise Malformed(f"the payload holds {counted(lines, 'record')}, the manifest says {manifest.count}")
    return raw[:-1].split(b"\n") if raw else []


def _inflate(payload: bytes, expected: int) -> bytes:
    """Decompress exactly one frame into at most ``expected`` bytes. Data after the frame is refused."""
    try:
        frame = zstandard.get_frame_parameters(payload)
        if frame.window_size > MAX_WINDOW_BYTES:
            raise Malformed(f"the payload needs a window of {frame.window_size} bytes, {MAX_WINDOW_BYTES} are allowed")
        if expected < frame.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            raise Malformed(f"the records have {expected + 1} bytes or more, the manifest says {expected}")
        return zstandard.ZstdDecompressor().decompress(payload, max_output_size=expected, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"the payload is not a zstd frame of {expected} bytes: {error}") from None


def open_wire(
    keys: LinkKeys, wire: bytes, check: Callable[[Manifest], None] = lambda _: None
) -> tuple[SealedBatch, list[bytes]]:
    """Verify bytes from the other side, signature first. Returns the batch and its records.

    ``check`` is called with the verified manifest before the payload is decompressed; it may raise `LinkError`.

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
    check(manifest)
    return SealedBatch(manifest, manifest_bytes, signature, payload), unpack(manifest, payload)
