"""Requests: list, read, trace, cancel. Submitting and reading results: `api.request.direct_routes`."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Query
from pydantic import Field

from api.bearer import needs_key
from api.pagination import DEFAULT_LIMIT, Page, PageCursor, PageItem, PageLimit, decode_cursor
from api.problems import problem_responses
from api.request.callers import App, CallerOf
from api.request.custody import trace_of
from api.request.services import Services
from exchange.errors import StreamStopped
from fulfilment.cancelling import seal_cancellations
from fulfilment.catalog import Caller
from fulfilment.group_commit import refused_while_stopped
from fulfilment.request_store import cancel_request, find_request, list_requests, unknown_request
from models.errors import Conflict
from models.requests import RequestStatus, TypeName
from models.traces import Trace

router = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[needs_key])


class RequestView(PageItem):
    """A request of the caller."""

    type: str
    name: str | None
    priority: int
    params: dict[str, Any]
    status: RequestStatus
    submitted_at: datetime
    deadline_at: datetime | None
    finished_at: datetime | None
    callback_url: str | None
    callback_at: datetime | None = Field(
        description="When the callback was delivered, or given up if callback_lost is set"
    )
    callback_lost: str | None


class RequestPage(Page[RequestView]):
    """Requests of the caller, newest first."""


@router.get("", summary="List requests, newest first", responses=problem_responses(401, 422, 503))
async def list_my_requests(
    services: App,
    caller: CallerOf,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
    status: RequestStatus | None = None,
    type: Annotated[TypeName | None, Query()] = None,
) -> RequestPage:
    """The requests of the caller."""
    async with services.engine.connect() as connection:
        found = await list_requests(
            connection, caller.user_id, decode_cursor(cursor), status.value if status else None, type, limit + 1
        )
    return RequestPage.of([_view(item) for item in found], limit)


@router.get("/{request_id}", summary="Read a request", responses=problem_responses(401, 404, 422, 503))
async def get_request(services: App, caller: CallerOf, request_id: UUID) -> RequestView:
    """One request of the caller, with its status."""
    return await _find(services, caller, request_id)


@router.delete("/{request_id}", summary="Cancel a request", responses=problem_responses(401, 404, 409, 422, 503))
async def cancel(services: App, caller: CallerOf, request_id: UUID) -> RequestView:
    """Close the request. The response network does not execute it, if it has not done so yet."""
    try:
        closed = await _close(services, caller, request_id)
    except StreamStopped as error:
        raise refused_while_stopped(error) from error
    view = await _find(services, caller, request_id)
    if not closed and view.status is not RequestStatus.CANCELLED:
        raise Conflict(f"The request is {view.status} and cannot be cancelled")
    return view


@router.get("/{request_id}/trace", summary="Trace a request", responses=problem_responses(401, 404, 422, 503))
async def get_trace(services: App, caller: CallerOf, request_id: UUID) -> Trace:
    """The steps of one request of the caller that this network knows, with times, and what the request waits for."""
    return await trace_of(services, request_id, caller.user_id)


async def _close(services: Services, caller: Caller, request_id: UUID) -> bool:
    """Close the request and seal its cancellation in one transaction. Return False if it had ended."""
    async with services.engine.begin() as connection:
        if not await cancel_request(connection, caller.user_id, request_id):
            return False
        await seal_cancellations(connection, services.sealer, [(request_id, caller.user_id)])
        return True


async def _find(services: Services, caller: Caller, request_id: UUID) -> RequestView:
    async with services.engine.connect() as connection:
        found = await find_request(connection, caller.user_id, request_id)
    if found is None:
        raise unknown_request(request_id)
    return _view(found)


def _view(found: Any) -> RequestView:
    return RequestView.model_validate({**found._mapping, "params": orjson.loads(found.params)})
