"""Routes that bypass FastAPI's routing and parameter resolution, which take several times as long as a short answer.

Such an endpoint takes the request and returns a response. It reads its parameters with `Parameters`. FastAPI describes
the route in the OpenAPI document like any other.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Generic, TypeVar, get_type_hints

from fastapi import Depends, Request, Response
from fastapi.params import Header, Param, Path, Query
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from api.problems import error_response, invalid_fields

Model = TypeVar("Model")

USUAL_QUERY = 256
"""Bytes of a query that is remembered. Longer ones would fill the memory."""


class DirectRoutes:
    """Answers these routes and passes all other calls to the app."""

    def __init__(self, app: ASGIApp, routes: Sequence[APIRoute]) -> None:
        self._app = app
        self._routes = [(route.methods or set(), route.path_regex, route) for route in routes]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for methods, path, route in self._routes:
                if scope["method"] in methods and (match := path.match(scope["path"])):
                    scope["route"] = route  # for the labels of the metrics
                    scope["path_params"] = match.groupdict()
                    response = await _answer(route, Request(scope, receive))
                    await response(scope, receive, send)
                    return
        await self._app(scope, receive, send)


async def _answer(route: APIRoute, request: Request) -> Response:
    try:
        response: Response = await route.endpoint(request)
    except Exception as error:
        return await error_response(request, error)
    return response


class Parameters(Generic[Model]):
    """Describes and reads the parameters of a direct route. ``model`` is a dataclass whose fields are annotated with
    FastAPI's `Path`, `Query` and `Header`.
    """

    def __init__(self, model: type[Model]) -> None:
        self.described = Depends(model)
        """For the route's ``dependencies``, only for the OpenAPI document: it is never called."""
        self._adapter = TypeAdapter(model)
        self._path: list[str] = []
        self._query: list[str] = []
        self._headers: dict[str, str] = {}
        for name, hint in get_type_hints(model, include_extras=True).items():
            place = next(item for item in hint.__metadata__ if isinstance(item, Param))
            if isinstance(place, Path):
                self._path.append(name)
            elif isinstance(place, Query):
                self._query.append(name)
            elif isinstance(place, Header):
                self._headers[name] = name.replace("_", "-")

    def read(self, request: Request) -> Model:
        """Read the parameters. Raises `InvalidInput` with every invalid parameter."""
        given: dict[str, Any] = {name: request.path_params[name] for name in self._path}
        if query := request.scope["query_string"]:
            asked = _parsed(query) if len(query) <= USUAL_QUERY else QueryParams(query)
            given |= {name: asked[name] for name in self._query if name in asked}
        for name, header in self._headers.items():
            if (content := request.headers.get(header)) is not None:
                given[name] = content
        try:
            return self._adapter.validate_python(given)
        except ValidationError as error:
            fields = [(str(item["loc"][0]), item["msg"]) for item in error.errors(include_url=False)]
            raise invalid_fields((self._headers.get(name, name), message) for name, message in fields) from None


@lru_cache(maxsize=128)
def _parsed(query: bytes) -> QueryParams:
    """Most callers write the same query each time."""
    return QueryParams(query)
