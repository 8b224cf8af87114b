"""Results as bytes: what the request network answers where the record itself is not enough."""

from datetime import datetime
from uuid import UUID

import orjson

_REASONS = {
    "expired": "the deadline passed before a result came",
    "cancelled": "the request was cancelled by its owner",
}


def closed_body(request_id: UUID, closed: str, closed_at: datetime) -> bytes:
    """The result of a request that ended without one: expired or cancelled."""
    return orjson.dumps(
        {
            "request_id": str(request_id),  # the database driver's UUID is not the standard library's
            "status": closed,
            "data": [],
            "returned": 0,
            "total": None,
            "truncated": False,
            "error": {"reason": closed, "message": _REASONS[closed]},
            "executed_at": closed_at,
            "duration_ms": None,
        },
        option=orjson.OPT_UTC_Z,
    )


def result_as_read(
    request_id: UUID, closed: str | None, closed_at: datetime | None, body: bytes | None
) -> bytes | None:
    """What callers read as a request's result; None while there is none. A result that comes after the request was
    closed changes nothing.
    """
    return closed_body(request_id, closed, closed_at) if closed and closed_at else body


def with_source(body: bytes, source: str) -> bytes:
    """A result's bytes with ``source`` added as the last member, without parsing them."""
    return body.rstrip()[:-1] + b',"source":"' + source.encode() + b'"}'
