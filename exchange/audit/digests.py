"""The rows of several batches as one SHA-256, computed from the batches' records and by PostgreSQL from its rows.

If both are equal, all rows agree. If not, rows must be compared one by one: some may be past retention or quarantined.

Each row contributes the bytes of its id, its fields at fixed offsets, a text and a line feed. Rows are sorted by id;
PostgreSQL and Python sort ids alike.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from execution.answer import to_json
from models.requests import RequestRecord
from storage.database import row

_PG_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_RESULT = "uuid_send(results.request_id) || sha256(results.body) || convert_to(results.status || E'\\n', 'UTF8')"
_REQUEST = (
    "uuid_send(request_id) || uuid_send(user_id) || sha256(params) || int2send(priority)"
    " || timestamptz_send(submitted_at) || coalesce(timestamptz_send(deadline_at), '-')"
    " || convert_to(type || E'\\n', 'UTF8')"
)


@dataclass(frozen=True)
class BulkDigest:
    """The digest of ``count`` records about the requests ``ids``."""

    count: int
    digest: bytes
    ids: list[str]


def results_digest(lines: Iterable[bytes]) -> BulkDigest | None:
    """The digest of results; None if a line is not a result."""
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
    return _digest_of(rows, ids)


def requests_digest(lines: Iterable[bytes]) -> tuple[BulkDigest, list[UUID]] | None:
    """The digest of the requests among the lines, and the requests that are cancelled; None if a line is neither."""
    rows: list[bytes] = []
    cancelled: list[UUID] = []
    try:
        for line in lines:
            record = RequestRecord.model_validate_json(line)
            if record.kind != "request":
                cancelled.append(record.request_id)
                continue
            rows.append(
                record.request_id.bytes
                + record.user_id.bytes
                + hashlib.sha256(to_json(record.params)).digest()
                + struct.pack(">hq", record.priority, _micros(record.submitted_at))
                + (struct.pack(">q", _micros(record.deadline_at)) if record.deadline_at else b"-")
                + record.type.encode()
                + b"\n"
            )
    except ValidationError:
        return None
    return _digest_of(rows, []), cancelled


def _digest_of(rows: list[bytes], ids: list[str]) -> BulkDigest:
    rows.sort()  # ids come first and have one length
    return BulkDigest(len(rows), hashlib.sha256(b"".join(rows)).digest(), ids)


def _micros(moment: datetime) -> int:
    """Microseconds since 2000, as PostgreSQL sends a timestamptz."""
    return (moment - _PG_EPOCH) // _MICROSECOND


def _digest(line: str, order: str) -> str:
    return f"count(*), sha256(coalesce(string_agg({line}, ''::bytea ORDER BY {order}), ''))"


async def arrived_digest(connection: AsyncConnection, epoch: int, sequences: Sequence[int]) -> tuple[int, bytes, bool]:
    """Count and digest of the request network's results of these batches, and whether all owners are right."""
    found = await row(
        connection,
        f"""
        SELECT {_digest(_RESULT, "results.request_id")},
               coalesce(bool_and(requests.user_id IS NULL OR requests.user_id = results.user_id), true)
        FROM results LEFT JOIN requests ON requests.request_id = results.request_id
        WHERE results.epoch = :epoch
          AND results.sequence = ANY(CAST(:sequences AS bigint[]))
        """,
        epoch=epoch,
        sequences=list(sequences),
    )
    assert found is not None
    return found[0], found[1], found[2]


async def executed_digest(connection: AsyncConnection, ids: Sequence[str]) -> tuple[int, bytes]:
    """Count and digest of the response network's results of these requests."""
    found = await row(
        connection,
        f"SELECT {_digest(_RESULT, 'request_id')} FROM results WHERE request_id = ANY(CAST(:ids AS uuid[]))",
        ids=list(ids),
    )
    assert found is not None
    return found[0], found[1]


async def request_digest(connection: AsyncConnection, epoch: int, sequences: Sequence[int]) -> tuple[int, bytes]:
    """Count and digest of the requests of these batches, in either network."""
    found = await row(
        connection,
        f"SELECT {_digest(_REQUEST, 'request_id')} FROM requests"
        " WHERE epoch = :epoch AND sequence = ANY(CAST(:sequences AS bigint[]))",
        epoch=epoch,
        sequences=list(sequences),
    )
    assert found is not None
    return found[0], found[1]
