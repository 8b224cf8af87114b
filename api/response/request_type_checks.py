"""Checks of a request type before it is stored: a mistake is a 422 now, and not a failed result for somebody later."""

from typing import Any
from urllib.parse import urlsplit

from api.response.query_check import check_query
from api.response.services import Services
from api.response.storable import invalid
from models.errors import InvalidInput
from models.executors import HttpExecutor, PythonExecutor, SqlExecutor
from models.parameters import ParameterCheck
from models.requests import Limits
from settings.setting_store import list_settings

_COMPOSED = {"$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas"}
"""With these a schema may have properties that its ``properties`` do not name."""


async def check_request_type(
    services: Services, schema: dict[str, Any], limits: Limits, executor: SqlExecutor | HttpExecutor | PythonExecutor
) -> list[str]:
    """Raises `InvalidInput` naming the field that does not fit; gives warnings of what could not be checked."""
    try:
        ParameterCheck(schema)
    except InvalidInput as error:
        raise InvalidInput(str(error), errors=[{"field": "params_schema", "message": str(error)}]) from None
    if schema.get("type") != "object":
        raise invalid("params_schema", 'must say "type": "object", since parameters are an object')
    properties = None if _COMPOSED & schema.keys() else set(schema.get("properties", {}))
    if properties is not None and limits.rows_param is not None and limits.rows_param not in properties:
        raise invalid("limits.rows_param", f"params_schema has no property {limits.rows_param!r}")
    match executor:
        case SqlExecutor():
            return await _check_sql(services, executor, properties)
        case HttpExecutor():
            return await _check_http(services, executor)
        case PythonExecutor():
            return _check_python(services, executor)


async def _check_sql(services: Services, executor: SqlExecutor, properties: set[str] | None) -> list[str]:
    source = services.settings.sources.get(executor.source)
    if source is None:
        raise invalid(
            "executor.source",
            f"the source {executor.source!r} is not in AIRLOCK_RESPONSE_SOURCES;"
            f" there are {_named(services.settings.sources)}",
        )
    return await check_query(source.get_secret_value(), executor.source, executor.query, properties)


async def _check_http(services: Services, executor: HttpExecutor) -> list[str]:
    try:
        host = urlsplit(executor.url)
        allowed = {host.netloc, host.hostname} & set(services.settings.http_hosts)
    except ValueError as error:
        raise invalid("executor.url", str(error)) from None
    if not allowed:
        raise invalid(
            "executor.url",
            f"the host {host.netloc!r} is not in AIRLOCK_RESPONSE_HTTP_HOSTS;"
            f" there are {_named(services.settings.http_hosts)}",
        )
    async with services.engine.connect() as connection:
        known = {setting.name for setting in await list_settings(connection) if setting.visibility == "secret"}
    missing = sorted(set(executor.secret_headers.values()) - known)
    return [f"there is no secret setting {name!r} yet: until there is, requests fail" for name in missing]


def _check_python(services: Services, executor: PythonExecutor) -> list[str]:
    """By its name only: the module is the worker's to import."""
    module = executor.function.partition(":")[0]
    if module not in services.settings.python_executors:
        raise invalid(
            "executor.function",
            f"the module {module!r} is not in AIRLOCK_RESPONSE_PYTHON_EXECUTORS;"
            f" there are {_named(services.settings.python_executors)}",
        )
    return []


def _named(names: Any) -> str:
    return ", ".join(sorted(names)) or "none"
