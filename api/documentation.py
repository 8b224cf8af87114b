"""The OpenAPI document: short operation ids, and errors as problem documents."""

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel

from api.problems import MEDIA_TYPE, FieldProblem, Problem

SCHEMAS = "#/components/schemas/"


def operation_id(route: APIRoute) -> str:
    """For ``generate_unique_id_function``: the function's name, which generated clients then use."""
    return route.name


def install_documentation(app: FastAPI, *bodies: type[BaseModel]) -> None:
    """Describe problem documents in this app's OpenAPI document. Raises ``ValueError`` for duplicate operation ids.

    ``bodies`` are models of bodies that a route parses itself and refers to with `reference`. Client generators ignore
    schemas without a name.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents it


def reference(model: type[BaseModel]) -> dict[str, str]:
    """A reference to a model's schema in the document."""
    return {"$ref": SCHEMAS + model.__name__}


def _document(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
        servers=app.servers,
        license_info=app.license_info,
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    problem = Problem.model_json_schema(ref_template=SCHEMAS + "{model}")
    problem.pop("$defs", None)
    schemas["Problem"] = problem
    described: tuple[type[BaseModel], ...] = (FieldProblem, *bodies)
    for model in described:
        schemas[model.__name__] = model.model_json_schema(ref_template=SCHEMAS + "{model}")
    ids: set[str] = set()
    for path in document["paths"].values():
        for operation in path.values():
            if operation["operationId"] in ids:
                raise ValueError(f"two operations have the id {operation['operationId']}")
            ids.add(operation["operationId"])
            _describe_problems(operation)
    return document


def _describe_problems(operation: dict[str, Any]) -> None:
    """Replace FastAPI's description of a failed validation by a problem document."""
    response = operation.get("responses", {}).get("422")
    if response and "HTTPValidationError" in str(response.get("content", "")):
        operation["responses"]["422"] = {
            "description": "The input is not valid",
            "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMAS + "Problem"}}},
        }
