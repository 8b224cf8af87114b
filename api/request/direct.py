"""The two calls that nearly all traffic consists of, answered without FastAPI's resolution of parameters, which costs
several times what the answer does.

Only their plain form: whatever is out of the ordinary goes the documented way, which knows how to say what is wrong.
Both ways call the same functions, and nothing here decides anything.
"""

import re
from uuid import UUID

import orjson
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from api.bearer import key_hash
from api.problems import error_response
from api.request.request_routes import MAX_WAIT_SECONDS, accept, as_response, location_of, read_result, router
from api.request.services import Services

REQUESTS = router.prefix
_RESULT = re.compile(re.escape(REQUESTS) + r"/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/result")
_WAIT = re.compile(rb"wait=(\d{1,2}(?:\.\d{1,3})?)")
_MOST_BYTES = 64 * 1024
_UNUSUAL = frozenset({b"if-none-match", b"idempotency-key", b"transfer-encoding", b"expect"})
"""Headers with which a call is not of the plain form."""


class Direct:
    """Stands before FastAPI; gives on what it does not answer."""

    def __init__(self, app: ASGIApp, routes: list[BaseRoute]) -> None:
        self._app = app
        self._routes = {getattr(route, "path", ""): route for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["method"] == "GET" and (named := _RESULT.fullmatch(scope["path"])):
                wait = _seconds(scope["query_string"])
                if wait is not None and (key := _key(scope)):
                    await self._result(UUID(named[1]), wait, key, scope, receive, send)
                    return
            elif (
                scope["method"] == "POST"
                and scope["path"] == REQUESTS
                and not scope["query_string"]
                and _is_short_json(scope)
                and (key := _key(scope))
            ):
                await self._submit(key, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _result(
        self, request_id: UUID, wait: float, key: bytes, scope: Scope, receive: Receive, send: Send
    ) -> None:
        scope["route"] = self._routes.get(f"{REQUESTS}/{{request_id}}/result")  # what metrics name it after
        services: Services = scope["app"].state.services
        try:
            caller = await services.catalog.caller(key)
            response = as_response(await read_result(services, caller, request_id, wait), None)
        except Exception as error:
            response = await error_response(Request(scope), error)
        await response(scope, receive, send)

    async def _submit(self, key: bytes, scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = self._routes.get(REQUESTS)
        services: Services = scope["app"].state.services
        try:
            caller = await services.catalog.caller(key)
            ids = await accept(services, caller, await _body(receive), None)
        except Exception as error:
            response = await error_response(Request(scope), error)
        else:
            body = orjson.dumps({"ids": ids, "id": ids[0] if len(ids) == 1 else None})
            response = Response(body, 202, {"Location": location_of(ids)}, "application/json")
        await response(scope, receive, send)


def _seconds(query: bytes) -> float | None:
    """How long the caller waits for a result; None where that is not plainly said."""
    if not query:
        return 0.0
    said = _WAIT.fullmatch(query)
    return float(said[1]) if said and float(said[1]) <= MAX_WAIT_SECONDS else None


def _key(scope: Scope) -> bytes | None:
    """The hash of the key that came with a call; None where there is none, or something unusual."""
    if any(name in _UNUSUAL for name, _ in scope["headers"]):
        return None
    return key_hash(Headers(scope=scope))


def _is_short_json(scope: Scope) -> bool:
    size = None
    for name, content in scope["headers"]:
        if name == b"content-type" and content != b"application/json":
            return False
        if name == b"content-length":
            if size is not None or not content.isdigit():
                return False
            size = int(content)
    return size is not None and size <= _MOST_BYTES


async def _body(receive: Receive) -> bytes:
    """The whole body, which `BodyLimit` bounds. Raises ``ClientDisconnect``."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)
