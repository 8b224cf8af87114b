"""What an executor gives back, and how it becomes the result that crosses."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import orjson

from models.requests import Limits, RequestStatus


@dataclass(frozen=True)
class Answer:
    """Rows as JSON, passed through as they came; ``total`` is None where it is not known."""

    rows: Sequence[bytes]
    total: int | None

    def to_bytes(self) -> bytes:
        """For the cache: the total, then a row a line."""
        return b"\n".join((json.dumps(self.total).encode(), *self.rows))

    @classmethod
    def from_bytes(cls, kept: bytes) -> Self:
        total, *rows = kept.split(b"\n")
        return cls(rows, json.loads(total))


class ExecutionFailed(Exception):
    """The request cannot be answered; ``reason`` is a stable word, the message is for its owner."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def rows_wanted(limits: Limits, params: dict[str, Any]) -> int:
    """How many rows may be returned: the type's limit, or fewer if the caller asks for fewer."""
    asked = params.get(limits.rows_param) if limits.rows_param else None
    if isinstance(asked, bool) or not isinstance(asked, int):
        return limits.rows
    return max(0, min(limits.rows, asked))


def completed(request_id: UUID, answer: Answer, limits: Limits, wanted: int, duration_ms: float) -> tuple[bytes, int]:
    """The result's JSON, and the rows in it: never more than the limits, and it says when something was cut off."""
    rows: list[bytes] = []
    room = limits.bytes
    for row in answer.rows[:wanted]:
        room -= len(row) + 1
        if room < 0:
            break
        rows.append(row)
    truncated = len(rows) < len(answer.rows) or (answer.total is not None and len(rows) < answer.total)
    body = _body(request_id, RequestStatus.COMPLETED, rows, answer.total, truncated, None, duration_ms)
    return body, len(rows)


def not_completed(
    request_id: UUID, status: RequestStatus, reason: str, message: str, duration_ms: float | None = None
) -> bytes:
    """The JSON of a result without data, with the reason."""
    error = {"reason": reason, "message": message[:2000]}
    return _body(request_id, status, [], None, False, error, duration_ms)


def _body(
    request_id: UUID,
    status: RequestStatus,
    rows: Sequence[bytes],
    total: int | None,
    truncated: bool,
    error: dict[str, str] | None,
    duration_ms: float | None,
) -> bytes:
    """`models.requests.ResultBody` as bytes, with the rows spliced in as they are."""
    head = f'{{"request_id":"{request_id}","status":"{status}","data":['.encode()
    tail = orjson.dumps(
        {
            "returned": len(rows),
            "total": total,
            "truncated": truncated,
            "error": error,
            "executed_at": datetime.now(UTC),
            "duration_ms": None if duration_ms is None else round(duration_ms, 3),
        },
        option=orjson.OPT_UTC_Z,
    )
    return head + b",".join(rows) + b"]," + tail[1:]


def to_json(item: Any) -> bytes:
    """One row as JSON; what JSON cannot say becomes its string."""
    try:
        return orjson.dumps(item, default=str)
    except orjson.JSONEncodeError:
        return json.dumps(item, default=str).encode()
