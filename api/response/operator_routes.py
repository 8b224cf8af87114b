"""Routes of operators: the key is checked before anything else of a call is read, and each change is logged."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from api.audit_log import record_action
from api.bearer import needs_key
from api.problems import problem_responses
from api.response.callers import authenticate
from models.errors import AirlockError

READS = ("GET", "HEAD")


class OperatorRoute(APIRoute):
    """Authenticates first. FastAPI alone would parse the body before: a stranger would hear what is wrong with it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            await authenticate(request)
            if request.method in READS:
                return await handle(request)
            status = 500
            try:
                response = await handle(request)
                status = response.status_code
            except AirlockError as error:
                status = error.status
                raise
            except RequestValidationError:
                status = 422
                raise
            finally:
                record_action(request, status)
            return response

        return authenticated


def operator_router(prefix: str, tag: str) -> APIRouter:
    """A router whose routes need an operator's key."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=OperatorRoute,
        dependencies=[needs_key],
        responses=problem_responses(401, 403, 503),
    )
