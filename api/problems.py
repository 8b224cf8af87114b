"""Errors as RFC 9457 problem documents. The only place that maps errors to HTTP answers."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.audit_log import RefusalLog
from models.errors import AirlockError, InvalidInput, NotFound, Unavailable, describe
from storage.database import is_unreachable

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:airlock:problem:"
RETRY_AFTER_SECONDS = 2
MAX_DETAIL = 10
MAX_MESSAGE = 300
"""Characters of a message or a field's name, since both may quote a large input."""
_refusals = RefusalLog()
METHODS = ("DELETE", "GET", "HEAD", "PATCH", "POST", "PUT")


class FieldProblem(BaseModel):
    """One invalid field."""

    field: str = Field(examples=["params.iata"])
    message: str


class Problem(BaseModel):
    """An RFC 9457 problem document. ``type`` is stable, ``detail`` is for people."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=[TYPE_PREFIX + "invalid-input"])
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] | None = Field(None, description="The invalid fields")


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For a route's ``responses``: these statuses have a problem document."""
    return {
        status: {
            "description": "Problem",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in statuses
    }


def problem_response(
    kind: str,
    title: str,
    status: int,
    detail: str,
    extra: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem document as a response."""
    body = {"type": TYPE_PREFIX + kind, "title": title, "status": status, "detail": detail, **(extra or {})}
    return Response(orjson.dumps(body, default=str), status, headers, MEDIA_TYPE)


def error_problem(error: AirlockError, headers: Mapping[str, str] | None = None) -> Response:
    """The response to an error of Airlock."""
    return problem_response(error.kind, error.title, error.status, str(error), error.extra, headers)


def invalid_fields(problems: Iterable[tuple[str, str]]) -> InvalidInput:
    """The error for invalid fields, given as names with messages. It lists at most `MAX_DETAIL` of them."""
    found = list(islice(problems, MAX_DETAIL + 1))
    errors = [{"field": _short(name), "message": _short(message)} for name, message in found[:MAX_DETAIL]]
    more = "; and more" if len(found) > MAX_DETAIL else ""
    return InvalidInput("; ".join(f"{item['field']}: {item['message']}" for item in errors) + more, errors=errors)


def _short(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE else f"{text[: MAX_MESSAGE // 2]} … {text[-MAX_MESSAGE // 2 :]}"


def install_problems(app: FastAPI) -> None:
    """Answer every error of this app with a problem document."""
    app.add_exception_handler(AirlockError, _airlock_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)
    app.add_middleware(UnexpectedErrors)


class UnexpectedErrors:
    """Answers errors that have no handler. Unlike Starlette's handler for ``Exception`` it is inside all other
    middleware, so that these answers have the security headers and are counted, and each error is logged once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched_send)
        except Exception as error:
            if started or scope["type"] != "http":
                raise
            response = await _unexpected_error(Request(scope), error)
            await response(scope, receive, send)


async def error_response(request: Request, error: Exception) -> Response:
    """The response to any error, as the handlers of `install_problems` give it."""
    return await (_airlock_error if isinstance(error, AirlockError) else _unexpected_error)(request, error)


async def _airlock_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AirlockError)
    if error.status in (401, 403):
        _refusals.record(request, error.status, error.kind)
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if error.status in (429, 503) else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="airlock"'
    return error_problem(error, headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fields = (
        (
            ".".join(str(part) for part in item["loc"][1:]) or str(item["loc"][0]),
            item["msg"].removeprefix("Value error, "),
        )
        for item in error.errors()
    )
    return await _airlock_error(request, invalid_fields(fields))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return error_problem(NotFound("This path does not exist; see /docs"))
    if error.status_code == 400:  # from FastAPI, for a body that is not text or is nested too deep
        return await _airlock_error(request, invalid_fields([("body", "not JSON in UTF-8, or nested too deep")]))
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    kind = {405: "method-not-allowed", 413: "too-large"}.get(error.status_code, "http")
    return problem_response(kind, str(error.detail), error.status_code, str(error.detail), headers=headers)


def _allowed(request: Request) -> str:
    """All methods of this path (RFC 9110, 10.2.1). Starlette lists those of one route only."""
    routes = request.app.router.routes
    found = [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]
    return ", ".join(found)


async def _unexpected_error(request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):  # also for invalid chunks
        return problem_response(
            "cut-off", "The body was cut off", 400, "The body is incomplete, or its framing is invalid"
        )
    if is_unreachable(error):
        log.warning("api.database_away", path=request.url.path, error=describe(error))
        unavailable = Unavailable(
            "The database does not answer; it is unknown whether anything was stored. Try again, with the same "
            "Idempotency-Key if you used one"
        )
        return await _airlock_error(request, unavailable)
    log.error("api.broke", path=request.url.path, exc_info=error)
    return await _airlock_error(request, AirlockError("An internal error; the server's log has the details"))
