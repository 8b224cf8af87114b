"""The manifest of a batch, and its signature.

The signature covers the exact bytes that cross. They are never rebuilt from parsed fields, so no canonical form is
needed. The SHA-256 of these bytes is the batch's hash. A manifest holds the SHA-256 of the payload and the hash of the
previous batch, so the batches of a stream form a chain.
"""

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exchange.errors import Malformed, UnsupportedVersion
from exchange.wire.keys import MANIFEST, LinkKeys
from models.requests import Moment
from models.streams import StreamName

SPEC = 1

MAX_RECORDS = 5000
MAX_RAW_BYTES = 8 * 1024 * 1024
MAX_PAYLOAD_BYTES = MAX_RAW_BYTES + 64 * 1024
"""Incompressible records grow a little under zstd."""
MAX_MANIFEST_BYTES = 4096
MAX_BIGINT = 2**63 - 1

Sha256Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0, le=MAX_BIGINT, strict=True)]


class Manifest(BaseModel):
    """Sizes are in bytes. Numbers count from 1 within the epoch. ``parts`` batches make one snapshot."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Literal[1] = 1
    link: str = Field(max_length=63)
    stream: StreamName
    epoch: Annotated[int, Field(ge=1, le=2**31 - 1, strict=True)]
    sequence: Annotated[int, Field(ge=1, le=MAX_BIGINT, strict=True)]
    first_record: Number
    last_record: Number
    count: Annotated[int, Field(ge=0, le=MAX_RECORDS, strict=True)]
    part: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    parts: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 1
    raw_bytes: Annotated[int, Field(ge=0, le=MAX_RAW_BYTES, strict=True)]
    payload_bytes: Annotated[int, Field(ge=0, le=MAX_PAYLOAD_BYTES, strict=True)]
    payload_sha256: Sha256Hex
    previous: Sha256Hex
    key_id: str = Field(pattern=r"^[0-9a-f]{16}$")
    sealed_at: Moment

    @model_validator(mode="after")
    def _numbers_agree(self) -> "Manifest":
        if self.last_record - self.first_record + 1 != self.count:
            raise ValueError("first_record, last_record and count do not agree")
        if self.part > self.parts:
            raise ValueError("part is beyond parts")
        return self

    def to_bytes(self) -> bytes:
        """The JSON that crosses, without line breaks."""
        return self.model_dump_json().encode()


def hash_of(manifest_bytes: bytes) -> bytes:
    """The batch's hash, 32 bytes. The next batch carries it as ``previous``."""
    return hashlib.sha256(manifest_bytes).digest()


def sign_manifest(keys: LinkKeys, manifest: Manifest) -> tuple[bytes, bytes]:
    """Return the manifest's bytes and their signature."""
    content = manifest.to_bytes()
    return content, keys.sign(MANIFEST, content, manifest.key_id)


def verify_manifest(keys: LinkKeys, content: bytes, signature: bytes) -> Manifest:
    """Verify and parse. Only the key id and the version are read before the signature is verified.

    Raises `UnsupportedVersion`, `Malformed`, `UnknownKey` or `BadSignature`.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise Malformed(f"a manifest has {MAX_MANIFEST_BYTES} bytes at most, this one {len(content)}")
    try:
        head = _Head.model_validate_json(content)
    except ValidationError as error:
        raise Malformed(f"not a manifest: {error.errors(include_url=False)[0]['msg']}") from None
    keys.verify(MANIFEST, content, head.key_id, signature)
    if head.spec != SPEC:
        raise UnsupportedVersion(f"the batch is of protocol version {head.spec}, this side speaks {SPEC}: upgrade it")
    try:
        return Manifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise Malformed(f"manifest field {'.'.join(map(str, first['loc'])) or '(all)'}: {first['msg']}") from None


class _Head(BaseModel):
    spec: int
    key_id: str = Field(max_length=64)
