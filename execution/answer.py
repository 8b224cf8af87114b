"""The answer of an executor, and the result that is made from it."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self
from uuid import UUID

import orjson

from models.requests import Limits, RequestStatus
from models.results import body_without_data

MAX_TOTAL = 2**63 - 1
"""The largest bigint."""


@dataclass(frozen=True)
class Answer:
    """Rows as JSON bytes, unchanged; ``total`` is None if it is unknown.

    A row has no line break, since a record of a batch is one line; see `one_line`.
    """

    rows: Sequence[bytes]
    total: int | None

    def to_bytes(self) -> bytes:
        """For the cache: the total, then one row per line."""
        return b"\n".join((json.dumps(self.total).encode(), *self.rows))

    @classmethod
    def from_bytes(cls, kept: bytes) -> Self:
        """The inverse of `to_bytes`. Raises ``ValueError`` for other bytes."""
        total, *rows = kept.split(b"\n")
        if total != b"null" and not (total.isdigit() and len(total) < 20 and int(total) <= MAX_TOTAL):
            raise ValueError("the first line is not a number of rows")
        for row in rows:
            orjson.loads(row)
        return cls(rows, None if total == b"null" else int(total))


class ExecutionFailed(Exception):
    """The request cannot be answered. ``reason`` is a stable word; the message is for the request's owner."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def rows_wanted(limits: Limits, params: dict[str, Any]) -> int:
    """The number of rows to return: the type's limit, or less if the caller asks for less."""
    asked = params.get(limits.rows_param) if limits.rows_param else None
    if isinstance(asked, float) and asked.is_integer():
        asked = int(asked)  # 5.0 is an integer to JSON Schema
    if isinstance(asked, bool) or not isinstance(asked, int):
        return limits.rows
    return max(0, min(limits.rows, asked))


def completed(request_id: UUID, answer: Answer, limits: Limits, wanted: int, duration_ms: float) -> tuple[bytes, int]:
    """The result's JSON, with the rows inserted unchanged, and its number of rows.

    Rows beyond the limits are cut off, and ``truncated`` says so.

    Raises `ExecutionFailed` for rows that the request network's JSON parser would refuse.
    """
    rows: list[bytes] = []
    room = limits.bytes
    for row in answer.rows[:wanted]:
        room -= len(row) + 1
        if room < 0:
            break
        rows.append(row)
    truncated = len(rows) < len(answer.rows) or (answer.total is not None and len(rows) < answer.total)
    head = f'{{"request_id":"{request_id}","status":"{RequestStatus.COMPLETED}","data":['.encode()
    tail = orjson.dumps(
        {
            "returned": len(rows),
            "total": answer.total,
            "truncated": truncated,
            "error": None,
            "executed_at": datetime.now(UTC),
            "duration_ms": round(duration_ms, 3),
        },
        option=orjson.OPT_UTC_Z,
    )
    body = head + b",".join(rows) + b"]," + tail[1:]
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        message = "the answer contains a value that JSON cannot carry, such as a number beyond double precision"
        raise ExecutionFailed("answer-unreadable", message) from None
    return body, len(rows)


def not_completed(
    request_id: UUID, status: RequestStatus, reason: str, message: str, duration_ms: float | None = None
) -> bytes:
    """The JSON of a result without data, with the reason."""
    error = {"reason": reason, "message": _text(message[:2000])}
    rounded = None if duration_ms is None else round(duration_ms, 3)
    return body_without_data(request_id, status, error, datetime.now(UTC), rounded)


def json_rows(items: Iterable[Any], wanted: int, most_bytes: int) -> list[bytes]:
    """The rows as JSON, taken one at a time until they exceed ``wanted`` or ``most_bytes``. The row that exceeds
    a limit is the last one, so that `completed` sees that rows were cut off.
    """
    rows: list[bytes] = []
    for item in items:
        rows.append(to_json(item))
        most_bytes -= len(rows[-1]) + 1
        if len(rows) > wanted or most_bytes < 0:
            break
    return rows


def one_line(row: bytes) -> bytes:
    """A row's JSON without line breaks. In JSON they stand only between tokens, so the value stays the same."""
    return row.replace(b"\n", b" ").replace(b"\r", b" ")


def to_json(item: Any) -> bytes:
    """One row as JSON. A type that JSON lacks becomes a string; NaN and infinity become null."""
    try:
        return orjson.dumps(item, default=str)
    except orjson.JSONEncodeError:
        return json.dumps(_plain(item), ensure_ascii=False, separators=(",", ":")).encode()


def _plain(item: Any) -> Any:
    """The item without what orjson or the other side refuses: lone surrogates, NaN, keys that are not text."""
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
    """The text with lone surrogates replaced, since UTF-8 cannot encode them."""
    return item.encode("utf-8", "replace").decode()
