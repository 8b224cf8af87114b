"""The request types that can be executed now."""

import structlog
from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from execution.catalog import list_request_types
from execution.registry import ExecutableType
from models.errors import InvalidInput
from models.executors import executor_spec
from models.parameters import ParameterCheck
from models.requests import Limits

log = structlog.get_logger(__name__)


async def executable_types(connection: AsyncConnection) -> dict[str, ExecutableType]:
    """The active request types, compiled. One that cannot be is left out, so that it fails its own requests only."""
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
            log.error("execution.type_unusable", type=found.name, error=str(error))
    return types
