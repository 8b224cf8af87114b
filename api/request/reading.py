"""Parses and checks submitted requests. An error names every invalid field."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from api.problems import invalid_fields
from fulfilment.catalog import Caller, Catalog
from fulfilment.group_commit import Submission
from fulfilment.request_store import IdempotencyKey, NewRequest
from models.errors import Unavailable
from models.requests import RequestSubmission

_MANY = TypeAdapter(list[RequestSubmission])
INTEGERS = range(-(2**63), 2**64)
"""Integers that cross unchanged. JSON parsers differ for larger ones."""


def check_media_type(content_type: str | None) -> None:
    """Raise `InvalidInput` for a Content-Type that is not JSON. It may be missing.

    ``application/x-www-form-urlencoded`` is accepted, since curl and urllib send it by default.
    """
    media_type = (content_type or "application/json").partition(";")[0].strip().lower()
    if media_type not in ("application/json", "application/x-www-form-urlencoded") and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise invalid_fields([("Content-Type", f"must be application/json, not {media_type}")])


def read_submissions(body: bytes, catalog: Catalog, most: int) -> list[RequestSubmission]:
    """Parse and check a body with one request or a list. Raises `InvalidInput` naming every invalid field."""
    is_list = body.lstrip()[:1] == b"["
    try:
        submissions = _MANY.validate_json(body) if is_list else [RequestSubmission.model_validate_json(body)]
    except ValidationError as error:
        raise invalid_fields(
            [
                (".".join(str(part) for part in item["loc"]) or "body", item["msg"].removeprefix("Value error, "))
                for item in error.errors(include_url=False, include_input=False, include_context=False)
            ]
        ) from None
    if not 1 <= len(submissions) <= most:
        raise invalid_fields([("body", f"a list must have 1 to {most} requests, this one has {len(submissions)}")])
    if not catalog.sequence:
        raise Unavailable("No request types have arrived from the response network yet; try again in a minute")
    problems: list[tuple[str, str]] = []
    for number, submission in enumerate(submissions):
        where = f"{number}." if is_list else ""
        known = catalog.types.get(submission.type)
        if known is None:
            names = ", ".join(catalog.types) or "none"
            problems.append((f"{where}type", f"there is no request type {submission.type!r}; there are: {names}"))
        else:
            found = list(_unsupported_numbers("params", submission.params)) or known.check.problems(submission.params)
            problems += [(where + name, message) for name, message in found]
        if submission.name is not None and "\x00" in submission.name:
            problems.append((f"{where}name", "must not contain the character U+0000"))
    if problems:
        raise invalid_fields(problems)
    return submissions


def to_submission(
    submissions: Sequence[RequestSubmission], caller: Caller, body: bytes, idempotency_key: str | None
) -> Submission:
    """Give the requests ids and times, and make their records for the link."""
    now = datetime.now(UTC)
    requests: list[NewRequest] = []
    records: list[bytes] = []
    for submission in submissions:
        request = NewRequest(
            uuid7(),
            caller.user_id,
            submission.type,
            submission.name,
            submission.priority,
            orjson.dumps(submission.params),
            str(submission.callback_url) if submission.callback_url else None,
            now,
            now + timedelta(seconds=submission.deadline) if submission.deadline else None,
        )
        requests.append(request)
        records.append(_record(request))
    idempotency = (
        IdempotencyKey(
            caller.user_id,
            idempotency_key,
            hashlib.sha256(body).digest(),
            tuple(request.request_id for request in requests),
        )
        if idempotency_key
        else None
    )
    return Submission(requests, records, idempotency)


def _record(request: NewRequest) -> bytes:
    """`models.requests.RequestRecord` as bytes. The parameters are inserted unchanged."""
    record: dict[str, Any] = {
        "kind": "request",
        "request_id": request.request_id,
        "user_id": request.user_id,
        "type": request.type,
        "params": orjson.Fragment(request.params),
        "priority": request.priority,
        "submitted_at": request.submitted_at,
        "deadline_at": request.deadline_at,
    }
    return orjson.dumps(record, option=orjson.OPT_UTC_Z)


def _unsupported_numbers(path: str, given: Any) -> Iterator[tuple[str, str]]:
    """Fields with NaN or infinity, which would cross as null, and with integers beyond 64 bits."""
    if isinstance(given, dict):
        for name, item in given.items():
            yield from _unsupported_numbers(f"{path}.{name}", item)
    elif isinstance(given, list):
        for number, item in enumerate(given):
            yield from _unsupported_numbers(f"{path}.{number}", item)
    elif isinstance(given, float) and not math.isfinite(given):
        yield path, "must be a finite number"
    elif isinstance(given, int) and given not in INTEGERS:
        yield path, "must be an integer of 64 bits at most; send a larger one as a string"
