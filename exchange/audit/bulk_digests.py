"""What a window of records should have left, as one SHA-256: `exchange.audit.digests` makes the same of the rows there are.

Where the two are equal, everything agrees and nothing need be looked at singly. Where they are not, that says nothing
yet: rows may be past retention, quarantined, or named by an earlier batch that held them first.
"""

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
from pydantic import ValidationError

from models.requests import RequestRecord

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class BulkDigest:
    """Of ``count`` records. ``ids``: the requests that they are about."""

    count: int
    digest: bytes
    ids: list[str]


def results_digest(lines: Iterable[bytes]) -> BulkDigest | None:
    """None where a line is no result."""
    rows: list[bytes] = []
    ids: list[str] = []
    try:
        for line in lines:
            loaded = orjson.loads(line)
            request_id, status = loaded["request_id"], loaded["status"]
            raw = bytes.fromhex(request_id.replace("-", ""))
            if len(raw) != 16 or len(request_id) != 36:
                return None
            ids.append(request_id)
            rows.append(raw + hashlib.sha256(line).digest() + status.encode() + b"\n")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return _digest(rows, ids)


def requests_digest(lines: Iterable[bytes]) -> tuple[BulkDigest, list[UUID]] | None:
    """Of the requests among the lines, and which requests the other lines withdraw; None where a line is neither."""
    rows: list[bytes] = []
    withdrawn: list[UUID] = []
    try:
        for line in lines:
            record = RequestRecord.model_validate_json(line)
            if record.kind != "request":
                withdrawn.append(record.request_id)
                continue
            rows.append(
                record.request_id.bytes
                + record.user_id.bytes
                + hashlib.sha256(orjson.dumps(record.params)).digest()
                + struct.pack(">hq", record.priority, _micros(record.submitted_at))
                + (struct.pack(">q", _micros(record.deadline_at)) if record.deadline_at else b"-")
                + record.type.encode()
                + b"\n"
            )
    except (ValidationError, orjson.JSONEncodeError):
        return None
    return _digest(rows, []), withdrawn


def _digest(rows: list[bytes], ids: list[str]) -> BulkDigest:
    rows.sort()  # ids come first and have one length
    return BulkDigest(len(rows), hashlib.sha256(b"".join(rows)).digest(), ids)


def _micros(moment: datetime) -> int:
    """As PostgreSQL sends a timestamptz: microseconds since 2000."""
    return (moment - _PG_EPOCH) // _MICROSECOND
