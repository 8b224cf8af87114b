"""The bytes of results that have no data, or that get a source."""

from datetime import datetime
from uuid import UUID

import orjson

_REASONS = {
    "expired": "the deadline passed before a result came",
    "cancelled": "the request was cancelled by its owner",
}


def body_without_data(
    request_id: UUID,
    status: str,
    error: dict[str, str] | None = None,
    executed_at: datetime | None = None,
    duration_ms: float | None = None,
) -> bytes:
    """`models.requests.ResultBody` as JSON, without rows."""
    return orjson.dumps(
        {
            "request_id": str(request_id),  # orjson does not know the UUID type of the database driver
            "status": status,
            "data": [],
            "returned": 0,
            "total": None,
            "truncated": False,
            "error": error,
            "executed_at": executed_at,
            "duration_ms": duration_ms,
        },
        option=orjson.OPT_UTC_Z,
    )


def closed_body(request_id: UUID, closed: str, closed_at: datetime) -> bytes:
    """The result of a request that expired or was cancelled."""
    return body_without_data(request_id, closed, {"reason": closed, "message": _REASONS[closed]}, closed_at)


def result_as_read(
    request_id: UUID, closed: str | None, closed_at: datetime | None, body: bytes | None
) -> bytes | None:
    """The result that callers read, or None if there is none. A result that arrived after the closing is ignored."""
    return closed_body(request_id, closed, closed_at) if closed and closed_at else body


def with_source(body: bytes, source: str) -> bytes:
    """A result's bytes with ``source`` added as the last member, without parsing them."""
    return body.rstrip()[:-1] + b',"source":"' + source.encode() + b'"}'


def is_result_of(cached: bytes, request_id: UUID) -> bool:
    """Whether these bytes look like the result of this request. `cache.redis_cache` has checked who wrote them."""
    whole = cached[:1] == b"{" and cached.rstrip()[-1:] == b"}"
    return whole and str(request_id).encode() in cached
