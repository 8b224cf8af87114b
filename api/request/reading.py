"""Parses and checks submitted requests. An error names the first invalid fields, at a cost that the body bounds."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Annotated, Any

import orjson
from pydantic import FailFast, TypeAdapter, ValidationError
from uuid_utils.compat import uuid7

from api.problems import MAX_DETAIL, invalid_fields
from fulfilment.catalog import Caller, Catalog
from fulfilment.group_commit import Submission
from fulfilment.request_store import IdempotencyKey, NewRequest
from models.errors import InvalidInput, Unavailable
from models.parameters import MAX_WORK
from models.requests import RequestSubmission

_MANY = TypeAdapter(Annotated[list[RequestSubmission], FailFast()])
LEAST, MOST = -(2**63), 2**64 - 1
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
    """Parse and check a body with one request or a list. Raises `InvalidInput` naming the first invalid fields.

    Of a list, the first request that cannot be read is named, or up to `MAX_DETAIL` that do not match their types.
    """
    is_list = body.lstrip()[:1] == b"["
    try:
        submissions = _MANY.validate_json(body) if is_list else [RequestSubmission.model_validate_json(body)]
    except ValidationError as error:
        raise _unreadable(error) from None
    if not 1 <= len(submissions) <= most:
        raise invalid_fields([("body", f"a list must have 1 to {most} requests, this one has {len(submissions)}")])
    if not catalog.sequence:
        raise Unavailable("No request types have arrived from the response network yet; try again in a minute")
    problems = islice(_problems(submissions, catalog, is_list), MAX_DETAIL)
    if found := list(problems):
        raise invalid_fields(found)
    return submissions


def _unreadable(error: ValidationError) -> InvalidInput:
    """The error for a body that is not a request. Only unknown names can be many: they are not listed then."""
    if (count := error.error_count()) > MAX_DETAIL:
        known = ", ".join(RequestSubmission.model_fields)
        return invalid_fields([("body", f"has {count} invalid fields; a request may have {known}")])
    return invalid_fields(
        [
            (".".join(str(part) for part in item["loc"]) or "body", item["msg"].removeprefix("Value error, "))
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
    )


def _problems(submissions: Sequence[RequestSubmission], catalog: Catalog, is_list: bool) -> Iterator[tuple[str, str]]:
    """What does not match the types, one problem per request. The work for all of them together has one bound."""
    work = 0
    for number, submission in enumerate(submissions):
        where = f"{number}." if is_list else ""
        if submission.name is not None and "\x00" in submission.name:
            yield f"{where}name", "must not contain the character U+0000"
        known = catalog.types.get(submission.type)
        if known is None:
            names = ", ".join(catalog.types) or "none"
            yield f"{where}type", f"there is no request type {submission.type!r}; there are: {names}"
            continue
        work += known.check.work(submission.params)
        if work > MAX_WORK and number:
            yield "body", "too many values for the schemas of these types; send fewer requests at a time"
            return
        if _has_only_supported_numbers(submission.params):
            found = known.check.problem(submission.params)
        else:
            found = next(_unsupported_numbers("params", submission.params))
        if found is not None:
            yield where + found[0], found[1]


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


def _has_only_supported_numbers(params: dict[str, Any]) -> bool:
    """Whether `_unsupported_numbers` finds nothing, in a tenth of its time."""
    inside: list[Any] = [params]
    while inside:
        container = inside.pop()
        for item in container.values() if type(container) is dict else container:
            kind = type(item)
            if kind is float:
                if not math.isfinite(item):
                    return False
            elif kind is int:
                if not LEAST <= item <= MOST:
                    return False
            elif kind is dict or kind is list:
                inside.append(item)
    return True


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
    elif isinstance(given, int) and not LEAST <= given <= MOST:
        yield path, "must be an integer of 64 bits at most; send a larger one as a string"
