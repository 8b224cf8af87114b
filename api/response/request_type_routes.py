"""Request types with their executors. Executors never cross the link."""

from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.ext.asyncio import AsyncConnection

from api.problems import problem_responses
from api.response.callers import App, Operator, OperatorOf
from api.response.operator_routes import operator_router
from api.response.request_type_checks import check_request_type
from api.response.storable import storable
from execution.request_types import (
    StoredRequestType,
    find_request_type,
    list_request_types,
    put_request_type,
    retire_request_type,
)
from models.errors import Conflict, NotFound
from models.executors import ExecutorSpec
from models.requests import Limits, PublicRequestType, TypeName
from storage.database import lock_until_commit

router = operator_router("/v1/request-types", "request types")

Name = Annotated[TypeName, Path(examples=["airport"])]

_EXAMPLE: dict[str, Any] = {
    "description": "One airport by its IATA code",
    "params_schema": {
        "type": "object",
        "properties": {"iata": {"type": "string", "pattern": "^[A-Z]{3}$"}},
        "required": ["iata"],
        "additionalProperties": False,
    },
    "limits": {"rows": 1, "timeout": 5},
    "executor": {"kind": "sql", "source": "sample", "query": "SELECT * FROM sample.airports WHERE iata = :iata"},
}


class RequestTypeDefinition(BaseModel):
    """The definition of a request type."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [_EXAMPLE]})

    description: str = Field("", max_length=2000)
    params_schema: dict[str, Any] = Field(
        default_factory=lambda: {"type": "object"}, description="JSON Schema (2020-12) of the parameters"
    )
    limits: Limits = Field(default_factory=Limits)
    executor: ExecutorSpec


class NewRequestType(RequestTypeDefinition):
    """A new request type."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "airport", **_EXAMPLE}]})

    name: TypeName


class RequestTypeView(PublicRequestType):
    """A request type with its executor. Its version increases with each change of its definition."""

    executor: ExecutorSpec
    retired_at: datetime | None = Field(description="When it was retired; null while it is active")
    updated_at: datetime
    updated_by: str
    warnings: list[str] = Field(default_factory=list, description="What could not be checked, or does not work yet")

    @classmethod
    def of(cls, stored: StoredRequestType, warnings: list[str] | None = None) -> Self:
        view = cls.model_validate(stored, from_attributes=True)
        view.warnings = warnings or []
        return view


class RequestTypesList(BaseModel):
    """All request types by name, including retired ones."""

    request_types: list[RequestTypeView]


@router.get("", summary="List request types", operation_id="list_request_types")
async def list_all(services: App, _operator: OperatorOf) -> RequestTypesList:
    """All request types, including retired ones."""
    async with services.engine.connect() as connection:
        found = await list_request_types(connection)
    return RequestTypesList(request_types=[RequestTypeView.of(stored) for stored in found])


@router.post(
    "",
    status_code=201,
    summary="Create a request type",
    operation_id="create_request_type",
    responses=problem_responses(409, 422),
)
async def create(services: App, operator: OperatorOf, new: NewRequestType) -> RequestTypeView:
    """Check schema, limits and executor, then create the request type."""
    warnings = await check_request_type(services, new.params_schema, new.limits, new.executor)
    async with services.engine.begin() as connection:
        await lock_until_commit(connection, f"request type {new.name}")
        if (before := await find_request_type(connection, new.name)) is not None:
            raise Conflict(
                f"The request type {new.name!r} already exists"
                + (", but is retired; restore it with PUT" if before.retired_at else "; change it with PUT")
            )
        return RequestTypeView.of(await _store(connection, new.name, new, operator), warnings)


@router.get("/{name}", summary="Read a request type", operation_id="get_request_type", responses=problem_responses(404))
async def get(services: App, _operator: OperatorOf, name: Name) -> RequestTypeView:
    """One request type, retired or not."""
    async with services.engine.connect() as connection:
        found = await find_request_type(connection, name)
    if found is None:
        raise _missing(name)
    return RequestTypeView.of(found)


@router.put(
    "/{name}",
    summary="Change a request type",
    operation_id="change_request_type",
    responses=problem_responses(404, 422),
)
async def change(services: App, operator: OperatorOf, name: Name, wanted: RequestTypeDefinition) -> RequestTypeView:
    """Replace the definition, and restore a retired type. The checks are those of creation."""
    warnings = await check_request_type(services, wanted.params_schema, wanted.limits, wanted.executor)
    async with services.engine.begin() as connection:
        await lock_until_commit(connection, f"request type {name}")
        if await find_request_type(connection, name) is None:
            raise _missing(name)
        return RequestTypeView.of(await _store(connection, name, wanted, operator), warnings)


@router.delete(
    "/{name}",
    status_code=204,
    summary="Retire a request type",
    operation_id="retire_request_type",
    responses=problem_responses(404),
)
async def retire(services: App, _operator: OperatorOf, name: Name) -> None:
    """After the next export, no request of this type is accepted. Open requests fail with a reason."""
    async with services.engine.begin() as connection:
        await lock_until_commit(connection, f"request type {name}")
        if not await retire_request_type(connection, name):
            raise NotFound(f"There is no active request type {name!r}")


async def _store(
    connection: AsyncConnection, name: str, wanted: RequestTypeDefinition, operator: Operator
) -> StoredRequestType:
    with storable("params_schema"):
        return await put_request_type(
            connection,
            name,
            wanted.description,
            wanted.params_schema,
            wanted.limits.model_dump(),
            wanted.executor.model_dump(),
            operator.name,
        )


def _missing(name: str) -> NotFound:
    return NotFound(f"There is no request type {name!r}; create it with POST /v1/request-types")
