"""Submitting requests and reading results. These are nearly all calls, so they are direct routes (`api.direct`)."""

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from api.bearer import needs_key
from api.conditional import IfNoneMatch, is_current
from api.direct import Parameters
from api.documentation import reference
from api.problems import problem_responses
from api.request.callers import caller_of, services_of
from api.request.reading import check_media_type, read_submissions, to_submission
from api.request.result_reading import find_result, status_of
from models.requests import RequestSubmission, ResultBody

router = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[needs_key])

MAX_WAIT_SECONDS = 60.0
MAX_LIST = 1000


class Accepted(BaseModel):
    """The requests are stored and will be answered."""

    ids: list[UUID] = Field(description="In the order of the submission")
    id: UUID | None = Field(description="The id, if one request was submitted")


class ResultView(ResultBody):
    """A result as callers read it. With status 202, it has the status of the request and no data."""

    source: str = Field(description="Where the result was read: cache or database", examples=["cache"])


_SUBMISSION = reference(RequestSubmission)
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "oneOf": [_SUBMISSION, {"type": "array", "items": _SUBMISSION, "minItems": 1, "maxItems": MAX_LIST}]
                },
                "examples": {
                    "one": {"value": {"type": "airport", "params": {"iata": "IST"}}},
                    "several": {
                        "value": [
                            {"type": "airports-in-country", "params": {"country": "IS", "limit": 3}},
                            {"type": "airport", "params": {"iata": "KEF"}, "priority": 9, "deadline": 60},
                        ]
                    },
                },
            }
        },
    }
}


@dataclass(frozen=True)
class _SubmitParameters:
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="A call that repeats key and body stores nothing and returns the ids of the first call",
        ),
    ] = None


@dataclass(frozen=True)
class _ResultParameters:
    request_id: Annotated[UUID, Path()]
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for a result")] = 0
    if_none_match: IfNoneMatch = None


_SUBMIT, _RESULT = Parameters(_SubmitParameters), Parameters(_ResultParameters)


@router.post(
    "",
    status_code=202,
    summary="Submit one request or a list",
    response_model=Accepted,
    responses=problem_responses(401, 409, 413, 422, 503),
    dependencies=[_SUBMIT.described],
    openapi_extra=_BODY,
)
async def submit_requests(request: Request) -> Response:
    """Either all requests of a list are accepted or, if one is invalid, none."""
    services, caller = await services_of(request), await caller_of(request)
    idempotency_key = _SUBMIT.read(request).idempotency_key
    check_media_type(request.headers.get("content-type"))
    body = await request.body()
    submissions = read_submissions(body, await services.catalog.get(), MAX_LIST)
    ids = await services.group_commit.submit(to_submission(submissions, caller, body, idempotency_key))
    only = ids[0] if len(ids) == 1 else None
    location = f"{router.prefix}/{only}" if only else router.prefix
    content = orjson.dumps({"ids": ids, "id": only}, default=str)  # ids from the database have the driver's UUID type
    return Response(content, 202, {"Location": location}, "application/json")


@router.get(
    "/{request_id}/result",
    summary="Read the result, or wait for it",
    response_model=ResultView,
    responses={
        202: {"model": ResultView, "description": "There is no result yet"},
        304: {"description": "The result has the ETag that If-None-Match names"},
        **problem_responses(401, 404, 422, 503),
    },
    dependencies=[_RESULT.described],
)
async def get_result(request: Request) -> Response:
    """The bytes of the result as they crossed the link, with `source` added."""
    services, caller = await services_of(request), await caller_of(request)
    asked = _RESULT.read(request)
    wait = 0 if services.stopping.is_set() else asked.wait
    found = await find_result(services, caller, asked.request_id, wait)
    found = found or await status_of(services, caller, asked.request_id)
    if not found.is_final:
        return Response(found.body, 202, {"Retry-After": "1"}, "application/json")
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if is_current(asked.if_none_match, found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.body, 200, headers, "application/json")


ROUTES = [route for route in router.routes if isinstance(route, APIRoute)]
