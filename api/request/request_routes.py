"""Requests: submit, list, look at, read the result of, cancel."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import BaseModel, Field

from api.bearer import needs_key
from api.conditional import IfNoneMatch, has_already
from api.documentation import reference
from api.pagination import DEFAULT_LIMIT, Page, PageCursor, PageLimit, cut, decode_cursor
from api.problems import problem_responses
from api.request.callers import App, CallerOf
from api.request.catalog import Caller
from api.request.reading import check_media_type, read_submissions, to_submission
from api.request.result_reading import Found, how_far, look_for_result, wait_for_result
from api.request.services import Services
from api.request.submitting import refused_while_stopped
from exchange.errors import StreamStopped
from models.errors import Conflict, NotFound
from models.requests import RequestStatus, RequestSubmission, ResultBody, TypeName
from models.streams import StreamName
from storage.database import notify
from storage.submissions import cancel_request, find_request, list_requests

router = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[needs_key])

MAX_WAIT_SECONDS = 60.0
MAX_LIST = 1000


class Accepted(BaseModel):
    """The requests are stored and will be answered, whatever happens from here on."""

    ids: list[UUID] = Field(description="In the order of the submission")
    id: UUID | None = Field(description="The only one, when one was submitted")


class RequestView(BaseModel):
    """One request of the caller's."""

    request_id: UUID
    type: str
    name: str | None
    priority: int
    params: dict[str, Any]
    status: RequestStatus
    submitted_at: datetime
    deadline_at: datetime | None
    finished_at: datetime | None
    callback_url: str | None
    callback_at: datetime | None = Field(description="When the callback was delivered or, with callback_lost, given up")
    callback_lost: str | None


class RequestPage(Page[RequestView]):
    """Requests of the caller's, newest first."""


class ResultView(ResultBody):
    """A result as callers read it; with status 202, how far the request is and no data."""

    source: str = Field(description="Where it was read: cache or database", examples=["cache"])


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


@router.post(
    "",
    status_code=202,
    summary="Submit one request, or a list",
    responses=problem_responses(401, 409, 413, 422, 503),
    openapi_extra=_BODY,
)
async def submit_requests(
    request: Request,
    response: Response,
    services: App,
    caller: CallerOf,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=255,
            pattern=r"^[\x21-\x7e]+$",
            description="The same key with the same body gives the same ids and stores nothing again",
        ),
    ] = None,
) -> Accepted:
    """All requests of a list are accepted together or, when one does not fit, none."""
    check_media_type(request.headers.get("content-type"))
    ids = await accept(services, caller, await request.body(), idempotency_key)
    response.headers["Location"] = location_of(ids)
    return Accepted(ids=list(ids), id=ids[0] if len(ids) == 1 else None)


def location_of(ids: Sequence[UUID]) -> str:
    """Where what was accepted can be looked at."""
    return f"{router.prefix}/{ids[0]}" if len(ids) == 1 else router.prefix


async def accept(services: Services, caller: Caller, body: bytes, idempotency_key: str | None) -> tuple[UUID, ...]:
    """Check and commit the requests of a body; gives their ids."""
    submissions = read_submissions(body, await services.catalog.get(), MAX_LIST)
    return await services.group_commit.submit(to_submission(submissions, caller, body, idempotency_key))


@router.get("", summary="List requests, newest first", responses=problem_responses(401, 422, 503))
async def list_my_requests(
    services: App,
    caller: CallerOf,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
    status: RequestStatus | None = None,
    type: Annotated[TypeName | None, Query()] = None,
) -> RequestPage:
    """Requests of the caller's."""
    async with services.engine.connect() as connection:
        found = await list_requests(
            connection, caller.user_id, decode_cursor(cursor), status.value if status else None, type, limit + 1
        )
    items, following = cut([_view(item) for item in found], limit, lambda item: item.request_id)
    return RequestPage(items=list(items), next_cursor=following)


@router.get("/{request_id}", summary="Look at a request", responses=problem_responses(401, 404, 422, 503))
async def get_request(services: App, caller: CallerOf, request_id: UUID) -> RequestView:
    """One request of the caller's, with how far it is."""
    return await _find(services, caller, request_id)


@router.get(
    "/{request_id}/result",
    summary="Read the result, waiting for it if need be",
    response_model=ResultView,
    responses={
        202: {"model": ResultView, "description": "There is no result yet"},
        304: {"description": "The result is the one that If-None-Match names"},
        **problem_responses(401, 404, 422, 503),
    },
)
async def get_result(
    services: App,
    caller: CallerOf,
    request_id: UUID,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for a result")] = 0,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The result's bytes are passed through as they crossed the link, with `source` added."""
    return as_response(await read_result(services, caller, request_id, wait), if_none_match)


async def read_result(services: Services, caller: Caller, request_id: UUID, wait: float) -> Found:
    """The result, waiting up to ``wait`` seconds for it, or else how far its request is; raises `NotFound`."""
    if wait and not services.stopping.is_set():
        found = await wait_for_result(services, caller, request_id, wait)
    else:
        found = await look_for_result(services, caller, request_id)
    return found or await how_far(services, caller, request_id)


@router.delete("/{request_id}", summary="Cancel a request", responses=problem_responses(401, 404, 409, 422, 503))
async def cancel(services: App, caller: CallerOf, request_id: UUID) -> RequestView:
    """Closes the request; the response network is told not to execute it, if it has not yet."""
    try:
        closed = await _close(services, caller, request_id)
    except StreamStopped as error:
        raise refused_while_stopped(error) from error
    view = await _find(services, caller, request_id)
    if not closed and view.status is not RequestStatus.CANCELLED:
        raise Conflict(f"The request is {view.status}: there is nothing left to cancel")
    return view


async def _close(services: Services, caller: Caller, request_id: UUID) -> bool:
    """Close the request and tell the response network, together or not at all; False where it had ended."""
    async with services.engine.begin() as connection:
        if not await cancel_request(connection, caller.user_id, request_id):
            return False
        record = {
            "kind": "cancellation",
            "request_id": request_id,
            "user_id": caller.user_id,
            "submitted_at": datetime.now(UTC),
        }
        await services.sealer.seal(connection, StreamName.REQUESTS, [orjson.dumps(record)])
        await notify(connection, f"sealed {StreamName.REQUESTS}")
        return True


async def _find(services: Services, caller: Caller, request_id: UUID) -> RequestView:
    async with services.engine.connect() as connection:
        found = await find_request(connection, caller.user_id, request_id)
    if found is None:
        raise NotFound(f"There is no request {request_id} of yours")
    return _view(found)


def _view(found: Any) -> RequestView:
    return RequestView.model_validate({**found._mapping, "params": orjson.loads(found.params)})


def as_response(found: Found, if_none_match: str | None) -> Response:
    """What was found as an answer: 200, 202 while there is no result, 304 where the caller has it."""
    if not found.is_final:
        return Response(found.body, 202, {"Retry-After": "1"}, "application/json")
    headers = {"ETag": found.etag, "Cache-Control": "private, no-cache"}
    if has_already(if_none_match, found.etag):
        return Response(status_code=304, headers=headers)
    return Response(found.body, 200, headers, "application/json")
