"""Stored results."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Query, Response
from pydantic import ConfigDict, Field

from api.pagination import DEFAULT_LIMIT, Page, PageCursor, PageItem, PageLimit, decode_cursor
from api.problems import problem_responses
from api.response.callers import App, OperatorOf
from api.response.operator_routes import operator_router
from execution.execution_store import find_result_body, list_results
from models.errors import NotFound
from models.requests import RequestStatus, ResultBody, TypeName

router = operator_router("/v1/results", "results")


class ResultSummary(PageItem):
    """A result without its rows."""

    model_config = ConfigDict(from_attributes=True)

    type: str
    status: RequestStatus
    reason: str | None = Field(description="Stable word for the reason why there is no data")
    returned: int
    total: int | None
    duration_ms: float | None
    created_at: datetime


class ResultsPage(Page[ResultSummary]):
    """Results, newest request first."""


@router.get("", summary="List results", operation_id="list_results", responses=problem_responses(422))
async def list_some(
    services: App,
    _operator: OperatorOf,
    limit: PageLimit = DEFAULT_LIMIT,
    cursor: PageCursor = None,
    status: Annotated[RequestStatus | None, Query(description="Only results with this status")] = None,
    type: Annotated[TypeName | None, Query(description="Only results of this request type")] = None,
) -> ResultsPage:
    """A page of results, without their rows."""
    before = decode_cursor(cursor)
    async with services.engine.connect() as connection:
        found = await list_results(connection, before, status, type, limit + 1)
    return ResultsPage.of([ResultSummary.model_validate(item) for item in found], limit)


@router.get(
    "/{request_id}",
    summary="Read a result",
    operation_id="get_result",
    response_class=Response,
    responses={
        200: {"model": ResultBody, "description": "The bytes that cross the link"},
        **problem_responses(404, 422),
    },
)
async def get(services: App, _operator: OperatorOf, request_id: UUID) -> Response:
    """The stored bytes of a result, which are those that cross the link."""
    async with services.engine.connect() as connection:
        body = await find_result_body(connection, request_id)
    if body is None:
        raise NotFound(f"There is no result for a request {request_id}")
    return Response(body, media_type="application/json")
