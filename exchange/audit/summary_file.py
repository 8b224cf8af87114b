"""One side's summary as an NDJSON file, for networks that cannot reach each other.

The first line names the network. Then follow, per stream, its head; per epoch, the hashes of its manifests
(`HASHES_PER_LINE` per line) and the audit of its batches; and the rows that belong to no batch. The last line has the
number of lines and the signature over the SHA-256 of all lines before it, so a truncated file is detected.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pydantic import ValidationError

from exchange.audit.auditor import Auditor
from exchange.audit.summaries import Audit, Finding, RangeDigest, StreamHead
from exchange.errors import BadSignature, Malformed, UnknownKey, UnsupportedVersion
from exchange.wire.keys import DOMAIN, LinkKeys, key_id_of
from models.errors import ConfigurationError
from models.streams import Network, StreamName

SPEC = 2
PURPOSE = "summary"
HASHES_PER_LINE = 1000
Progress = Callable[[StreamName, Network, int, int], None]


async def write_summary(
    side: Auditor,
    keys: LinkKeys,
    link_id: str,
    streams: Sequence[StreamName],
    write: Callable[[str], Any],
    progress: Progress,
) -> bool:
    """Write this side's summary of these streams. Returns whether its rows agree with its batches."""
    lines, good = 0, True
    everything = hashlib.sha256()

    def put(kind: str, content: dict[str, Any]) -> None:
        nonlocal lines
        line = json.dumps({"kind": kind, **content}, separators=(",", ":")) + "\n"
        everything.update(line.encode())
        write(line)
        lines += 1

    made_at = datetime.now(UTC).isoformat()
    put("summary", {"spec": SPEC, "network": side.network, "link": link_id, "made_at": made_at})
    for stream in streams:
        head = await side.head(stream)
        put("head", {"head": head.model_dump(mode="json")})
        for span in head.epochs:
            place = {"stream": stream, "epoch": span.epoch}
            for first in range(1, span.through + 1, HASHES_PER_LINE):
                last = min(span.through, first + HASHES_PER_LINE - 1)
                found = await side.hashes(stream, span.epoch, first, last)
                hashes = [found.get(number) for number in range(first, last + 1)]
                put("hashes", {**place, "first": first, "hashes": hashes})
            first = 1
            while first <= span.through:
                part = await side.audit(stream, span.epoch, first, span.through)
                progress(stream, side.network, part.through, span.through)
                good = good and not part.findings
                put("audit", {**place, "audit": part.model_dump(mode="json")})
                first = part.through + 1
        orphans = await side.orphans(stream)
        good = good and not orphans
        put("orphans", {"stream": stream, "findings": [item.model_dump(mode="json") for item in orphans]})
    signature = base64.b64encode(keys.sign(PURPOSE, _signed(lines, everything.digest()))).decode()
    put("end", {"lines": lines, "key_id": keys.key_id, "signature": signature})
    return good


def _signed(lines: int, digest: bytes) -> bytes:
    return f"{lines} {digest.hex()}".encode()


@dataclass
class SummaryFile:
    """A `Side` as it was when its file was written. The hashes stay in the file; only their positions are in memory."""

    path: Path
    network: Network
    link: str
    heads: dict[StreamName, StreamHead] = field(default_factory=dict)
    audits: dict[tuple[StreamName, int], Audit] = field(default_factory=dict)
    orphaned: dict[StreamName, list[Finding]] = field(default_factory=dict)
    places: dict[tuple[StreamName, int, int], int] = field(default_factory=dict)
    key_id: str = ""
    live: ClassVar[bool] = False

    @classmethod
    def open(cls, path: Path, keys: Mapping[str, Ed25519PublicKey] | None = None) -> "SummaryFile":
        """Read a file. ``keys``: public keys by id, one of which must have signed it; None skips this check.

        Raises `Malformed`, `UnsupportedVersion`, `UnknownKey` or `BadSignature`, naming the file.
        """
        try:
            with path.open("rb") as file:
                return cls._read(path, file, keys)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise Malformed(f"{path} is not a complete summary ({str(error).splitlines()[0]}); make it again") from None

    @classmethod
    def _read(cls, path: Path, file: Any, keys: Mapping[str, Ed25519PublicKey] | None) -> "SummaryFile":
        content = file.readline()
        first = json.loads(content)
        if first["kind"] != "summary":
            raise ValueError("the first line is not that of a summary")
        if first["spec"] != SPEC:
            raise UnsupportedVersion(f"{path} is a summary of version {first['spec']}, this side reads {SPEC}")
        side = cls(path, Network(first["network"]), str(first["link"]))
        lines, ended, everything = 1, False, hashlib.sha256(content)
        while True:
            place = file.tell()
            line = file.readline()
            if not line:
                break
            if ended:
                raise ValueError("lines follow its last line")
            item = json.loads(line)
            if item["kind"] == "end":
                if item["lines"] != lines:
                    raise ValueError(f"it has {lines} lines, its last line says {item['lines']}")
                ended, side.key_id = True, str(item["key_id"])
                signature = base64.b64decode(item["signature"], validate=True)
                if keys is not None:
                    _verify(path, keys, side.key_id, _signed(lines, everything.digest()), signature)
            else:
                side._take(item, place)
            everything.update(line)
            lines += 1
        if not ended:
            raise ValueError("its last line is missing")
        return side

    def _take(self, item: dict[str, Any], place: int) -> None:
        kind = item["kind"]
        if kind == "head":
            head = StreamHead.model_validate_json(json.dumps(item["head"]))
            if head.network is not self.network:
                raise ValueError(f"it holds a head of the {head.network} network")
            self.heads[head.stream] = head
        elif kind == "hashes":
            self.places[StreamName(item["stream"]), int(item["epoch"]), int(item["first"])] = place
        elif kind == "audit":
            part = Audit.model_validate_json(json.dumps(item["audit"]))
            self.audits.setdefault((StreamName(item["stream"]), int(item["epoch"])), Audit()).add(part)
        elif kind == "orphans":
            found = [Finding.model_validate_json(json.dumps(each)) for each in item["findings"]]
            self.orphaned[StreamName(item["stream"])] = found

    async def head(self, stream: StreamName) -> StreamHead:
        return self.heads[stream]

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        digest, count = hashlib.sha256(), 0
        begin = first - (first - 1) % HASHES_PER_LINE
        with self.path.open("rb") as file:
            for start in range(begin, last + 1, HASHES_PER_LINE):
                if (place := self.places.get((stream, epoch, start))) is None:
                    continue
                file.seek(place)
                for number, each in enumerate(json.loads(file.readline())["hashes"], start):
                    if each is not None and first <= number <= last:
                        digest.update(bytes.fromhex(each))
                        count += 1
        return RangeDigest(count=count, digest=digest.hexdigest())

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        found = self.audits.get((stream, epoch), Audit())
        return found.model_copy(update={"through": max(last, found.through)})

    async def orphans(self, stream: StreamName) -> list[Finding]:
        return self.orphaned.get(stream, [])


def public_keys(directory: Path) -> dict[str, Ed25519PublicKey]:
    """The public keys in a directory, those of private keys too, by id. Raises `ConfigurationError` if none."""
    found: dict[str, Ed25519PublicKey] = {}
    for file in sorted(directory.rglob("*.pem")):
        content = file.read_bytes()
        try:
            if b"PRIVATE KEY" in content:
                private = serialization.load_pem_private_key(content, password=None)
                public = private.public_key() if isinstance(private, Ed25519PrivateKey) else None
            else:
                loaded = serialization.load_pem_public_key(content)
                public = loaded if isinstance(loaded, Ed25519PublicKey) else None
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError(f"{file} is not a key: {error}") from None
        if public is not None:
            found[key_id_of(public)] = public
    if not found:
        raise ConfigurationError(f"there is no Ed25519 key in {directory}")
    return found


def _verify(path: Path, keys: Mapping[str, Ed25519PublicKey], key_id: str, message: bytes, signature: bytes) -> None:
    if (public := keys.get(key_id)) is None:
        raise UnknownKey(f"{path} is signed by key {key_id[:32]!r}, which is not among the keys given")
    try:
        public.verify(signature, DOMAIN + PURPOSE.encode() + b"\n" + message)
    except InvalidSignature:
        raise BadSignature(f"{path} was changed since it was signed: its signature does not fit") from None
