"""The response network's request types: how they are stored, and which of them can be executed."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from execution.registry import ExecutableType
from models.errors import InvalidInput, describe
from models.executors import executor_spec
from models.parameters import ParameterCheck
from models.requests import Limits
from storage.database import AnyRow, execute, row, rows

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoredRequestType:
    """A request type with its executor, as plain JSON."""

    name: str
    version: int
    description: str
    params_schema: dict[str, Any]
    limits: dict[str, Any]
    executor: dict[str, Any]
    retired_at: datetime | None
    updated_at: datetime
    updated_by: str


_COLUMNS = (
    "name, version, description, params_schema::text, limits::text, executor::text, retired_at, updated_at, updated_by"
)


def _request_type(found: AnyRow) -> StoredRequestType:
    name, version, description, schema, limits, executor, *rest = found
    return StoredRequestType(
        name, version, description, json.loads(schema), json.loads(limits), json.loads(executor), *rest
    )


async def list_request_types(connection: AsyncConnection) -> list[StoredRequestType]:
    """All request types by name, including retired ones."""
    found = await rows(connection, f"SELECT {_COLUMNS} FROM request_types ORDER BY name")
    return [_request_type(item) for item in found]


async def find_request_type(connection: AsyncConnection, name: str) -> StoredRequestType | None:
    """One request type, retired or not."""
    found = await row(connection, f"SELECT {_COLUMNS} FROM request_types WHERE name = :name", name=name)
    return _request_type(found) if found else None


async def put_request_type(
    connection: AsyncConnection,
    name: str,
    description: str,
    params_schema: dict[str, Any],
    limits: dict[str, Any],
    executor: dict[str, Any],
    updated_by: str,
) -> StoredRequestType:
    """Create, change or restore a request type. Its version increases when its definition changes."""
    found = await row(
        connection,
        f"""
        INSERT INTO request_types (name, description, params_schema, limits, executor, updated_by)
        VALUES (:name, :description, CAST(:params_schema AS jsonb), CAST(:limits AS jsonb), CAST(:executor AS jsonb),
                :updated_by)
        ON CONFLICT (name) DO UPDATE SET description = excluded.description, params_schema = excluded.params_schema,
            limits = excluded.limits, executor = excluded.executor, retired_at = NULL,
            version = request_types.version
                + ((request_types.description, request_types.params_schema, request_types.limits,
                    request_types.executor)
                   IS DISTINCT FROM
                   (excluded.description, excluded.params_schema, excluded.limits, excluded.executor))::int,
            updated_at = now(), updated_by = excluded.updated_by
        RETURNING {_COLUMNS}
        """,
        name=name,
        description=description,
        params_schema=json.dumps(params_schema),
        limits=json.dumps(limits),
        executor=json.dumps(executor),
        updated_by=updated_by,
    )
    assert found is not None
    return _request_type(found)


async def retire_request_type(connection: AsyncConnection, name: str) -> bool:
    """Retire a request type; its open requests then fail with a reason. Return False if there is no active one."""
    retired = await execute(
        connection,
        "UPDATE request_types SET retired_at = now() WHERE name = :name AND retired_at IS NULL",
        name=name,
    )
    return retired > 0


async def executable_types(connection: AsyncConnection) -> dict[str, ExecutableType]:
    """The active request types, compiled. An invalid one is logged and left out: only its own requests fail."""
    types: dict[str, ExecutableType] = {}
    for found in await list_request_types(connection):
        if found.retired_at is not None:
            continue
        try:
            types[found.name] = ExecutableType(
                found.name,
                found.version,
                Limits.model_validate(found.limits),
                ParameterCheck(found.params_schema),
                executor_spec.validate_python(found.executor),
            )
        except (ValidationError, InvalidInput) as error:
            log.error("execution.type_unusable", type=found.name, error=describe(error))
    return types
