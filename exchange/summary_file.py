"""One side's summary as a file, for networks that cannot reach each other now: NDJSON, written and read in parts.

First a line that says whose it is, then per stream its head, the hashes of its manifests (`HASHES_PER_LINE` a line),
the audit of its batches and the rows that no batch explains; last a line that tells a whole file from a torn one.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ValidationError

from exchange.auditing import Auditor
from exchange.errors import Malformed, UnsupportedVersion
from exchange.summaries import Audit, Finding, RangeDigest, StreamHead
from models.streams import Network, StreamName

SPEC = 1
HASHES_PER_LINE = 1000
Progress = Callable[[StreamName, Network, int, int], None]


async def write_summary(
    side: Auditor, link_id: str, streams: Sequence[StreamName], write: Callable[[str], Any], progress: Progress
) -> bool:
    """Write what this side has of these streams; gives whether its rows are what its batches say."""
    lines, good = 0, True

    def put(kind: str, content: dict[str, Any]) -> None:
        nonlocal lines
        write(json.dumps({"kind": kind, **content}, separators=(",", ":")) + "\n")
        lines += 1

    made_at = datetime.now(UTC).isoformat()
    put("summary", {"spec": SPEC, "network": side.network, "link": link_id, "made_at": made_at})
    for stream in streams:
        head = await side.head(stream)
        put("head", {"head": head.model_dump(mode="json")})
        for first in range(1, head.sequence + 1, HASHES_PER_LINE):
            last = min(head.sequence, first + HASHES_PER_LINE - 1)
            found = await side.hashes(stream, head.epoch, first, last)
            hashes = [found.get(number) for number in range(first, last + 1)]
            put("hashes", {"stream": stream, "first": first, "hashes": hashes})
        first = 1
        while first <= head.sequence:
            part = await side.audit(stream, head.epoch, first, head.sequence)
            progress(stream, side.network, part.through, head.sequence)
            good = good and not part.findings
            put("audit", {"stream": stream, "audit": part.model_dump(mode="json")})
            first = part.through + 1
        strays = await side.strays(stream)
        good = good and not strays
        put("strays", {"stream": stream, "findings": [item.model_dump(mode="json") for item in strays]})
    put("end", {"lines": lines})
    return good


@dataclass
class SummaryFile:
    """A `Side` as it was when its file was written. Keeps where the hashes are, not the hashes."""

    path: Path
    network: Network
    link: str
    heads: dict[StreamName, StreamHead] = field(default_factory=dict)
    audits: dict[StreamName, Audit] = field(default_factory=dict)
    stray: dict[StreamName, list[Finding]] = field(default_factory=dict)
    places: dict[StreamName, dict[int, int]] = field(default_factory=dict)
    live: ClassVar[bool] = False

    @classmethod
    def open(cls, path: Path) -> "SummaryFile":
        """Read a file once; raises `Malformed` or `UnsupportedVersion`, naming it."""
        try:
            with path.open("rb") as file:
                return cls._read(path, file)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
            raise Malformed(f"{path} is no whole summary ({str(error).splitlines()[0]}); make it again") from None

    @classmethod
    def _read(cls, path: Path, file: Any) -> "SummaryFile":
        first = json.loads(file.readline())
        if first["kind"] != "summary":
            raise ValueError("it does not begin as one")
        if first["spec"] != SPEC:
            raise UnsupportedVersion(f"{path} is a summary of version {first['spec']}, this side reads {SPEC}")
        side = cls(path, Network(first["network"]), str(first["link"]))
        lines, ended = 1, False
        while True:
            place = file.tell()
            line = file.readline()
            if not line:
                break
            item = json.loads(line)
            ended = item["kind"] == "end" and item["lines"] == lines
            side._take(item, place)
            lines += 1
        if not ended:
            raise ValueError("its end is missing")
        return side

    def _take(self, item: dict[str, Any], place: int) -> None:
        kind = item["kind"]
        if kind == "head":
            head = StreamHead.model_validate_json(json.dumps(item["head"]))
            self.heads[head.stream] = head
        elif kind == "hashes":
            self.places.setdefault(StreamName(item["stream"]), {})[int(item["first"])] = place
        elif kind == "audit":
            part = Audit.model_validate_json(json.dumps(item["audit"]))
            self.audits.setdefault(StreamName(item["stream"]), Audit()).add(part)
        elif kind == "strays":
            found = [Finding.model_validate_json(json.dumps(each)) for each in item["findings"]]
            self.stray[StreamName(item["stream"])] = found

    async def head(self, stream: StreamName) -> StreamHead:
        return self.heads[stream]

    async def digest(self, stream: StreamName, epoch: int, first: int, last: int) -> RangeDigest:
        digest, count = hashlib.sha256(), 0
        begin = first - (first - 1) % HASHES_PER_LINE
        with self.path.open("rb") as file:
            for start in range(begin, last + 1, HASHES_PER_LINE):
                if (place := self.places.get(stream, {}).get(start)) is None:
                    continue
                file.seek(place)
                for number, each in enumerate(json.loads(file.readline())["hashes"], start):
                    if each is not None and first <= number <= last:
                        digest.update(bytes.fromhex(each))
                        count += 1
        return RangeDigest(count=count, digest=digest.hexdigest())

    async def audit(self, stream: StreamName, epoch: int, first: int, last: int) -> Audit:
        found = self.audits.get(stream, Audit())
        return found.model_copy(update={"through": max(last, found.through)})

    async def strays(self, stream: StreamName) -> list[Finding]:
        return self.stray.get(stream, [])
