"""What an executor gives back, and how it becomes the result that crosses."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import orjson

from models.requests import Limits, RequestStatus

MAX_TOTAL = 2**63 - 1
"""As far as the database counts."""


@dataclass(frozen=True)
class Answer:
    """Rows as JSON, passed through as they came; ``total`` is None where it is not known.

    A row holds no line break: a record of a batch is a line. In JSON a line break only ever stands between tokens, so
    `one_line` may take it away.
    """

    rows: Sequence[bytes]
    total: int | None

    def to_bytes(self) -> bytes:
        """For the cache: the total, then a row a line."""
        return b"\n".join((json.dumps(self.total).encode(), *self.rows))

    @classmethod
    def from_bytes(cls, kept: bytes) -> Self:
        """Raises ``ValueError`` when these bytes are not what `to_bytes` gave."""
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
    if isinstance(asked, float) and asked.is_integer():
        asked = int(asked)  # 5.0 is an integer to JSON Schema
    if isinstance(asked, bool) or not isinstance(asked, int):
        return limits.rows
    return max(0, min(limits.rows, asked))


def completed(request_id: UUID, answer: Answer, limits: Limits, wanted: int, duration_ms: float) -> tuple[bytes, int]:
    """The result's JSON, and the rows in it: never more than the limits, and it says when something was cut off.

    Raises `ExecutionFailed` for rows that the other side could not read: its parser is asked before it gets them.
    """
    rows: list[bytes] = []
    room = limits.bytes
    for row in answer.rows[:wanted]:
        room -= len(row) + 1
        if room < 0:
            break
        rows.append(row)
    truncated = len(rows) < len(answer.rows) or (answer.total is not None and len(rows) < answer.total)
    body = _body(request_id, RequestStatus.COMPLETED, rows, answer.total, truncated, None, duration_ms)
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        message = "the answer holds something that cannot cross, such as a number beyond double precision"
        raise ExecutionFailed("answer-unreadable", message) from None
    return body, len(rows)


def not_completed(
    request_id: UUID, status: RequestStatus, reason: str, message: str, duration_ms: float | None = None
) -> bytes:
    """The JSON of a result without data, with the reason."""
    error = {"reason": reason, "message": _text(message[:2000])}
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


def one_line(row: bytes) -> bytes:
    """A row's JSON without line breaks; all else stays as it is."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ")


def to_json(item: Any) -> bytes:
    """One row as JSON; what JSON cannot say becomes its string, and a number that is none becomes null."""
    try:
        return orjson.dumps(item, default=str)
    except orjson.JSONEncodeError:
        return json.dumps(_plain(item), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(item: Any) -> Any:
    """The same without lone surrogates, NaN and keys that are no text: what orjson refuses or the other side would."""
    if item is None or isinstance(item, bool | int):
        return item
    if isinstance(item, float):
        return item if math.isfinite(item) else None
    if isinstance(item, Mapping):
        return {_text(str(key)): _plain(value) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_plain(value) for value in item]
    return _text(str(item))


def _text(item: str) -> str:
    """Text that UTF-8 can say."""
    return item.encode("utf-8", "replace").decode()
