"""Where a request has been and what it waits for, for its owner."""

from uuid import UUID

from fastapi import APIRouter

from api.bearer import needs_key
from api.problems import problem_responses
from api.request.callers import App, CallerOf
from api.request.custody import trace_of
from models.traces import Trace

router = APIRouter(prefix="/v1/requests", tags=["requests"], dependencies=[needs_key])


@router.get("/{request_id}/trace", summary="Follow a request's way", responses=problem_responses(401, 404, 422, 503))
async def get_trace(services: App, caller: CallerOf, request_id: UUID) -> Trace:
    """Every step of one request of the caller's that this network knows of, with times, and what it waits for now."""
    return await trace_of(services, request_id, caller.user_id)
