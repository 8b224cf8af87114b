"""Checks of a request type before it is stored, so that a mistake is found now and not by a failed request."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from api.problems import invalid_fields
from api.response.query_check import check_query
from api.response.services import Services
from models.errors import InvalidInput
from models.executors import HttpExecutor, PythonExecutor, SqlExecutor
from models.parameters import ParameterCheck
from models.requests import Limits
from settings.setting_store import list_settings

_COMPOSED = {"$ref", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas"}
"""With these keywords, a schema may allow more properties than its ``properties`` name."""


async def check_request_type(
    services: Services, schema: dict[str, Any], limits: Limits, executor: SqlExecutor | HttpExecutor | PythonExecutor
) -> list[str]:
    """Return warnings about what could not be checked. Raises `InvalidInput` naming the invalid field."""
    try:
        ParameterCheck(schema)
    except InvalidInput as error:
        raise invalid_fields([("params_schema", str(error))]) from None
    if schema.get("type") != "object":
        raise invalid_fields([("params_schema", 'must contain "type": "object", since parameters are an object')])
    properties = None if _COMPOSED & schema.keys() else set(schema.get("properties", {}))
    if properties is not None and limits.rows_param is not None and limits.rows_param not in properties:
        raise invalid_fields([("limits.rows_param", f"params_schema has no property {limits.rows_param!r}")])
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
        raise _not_configured("source", executor.source, "AIRLOCK_RESPONSE_SOURCES", services.settings.sources)
    return await check_query(source.get_secret_value(), executor.source, executor.query, properties)


async def _check_http(services: Services, executor: HttpExecutor) -> list[str]:
    try:
        host = urlsplit(executor.url)
        allowed = {host.netloc, host.hostname} & set(services.settings.http_hosts)
    except ValueError as error:
        raise invalid_fields([("executor.url", str(error))]) from None
    if not allowed:
        raise _not_configured("url", host.netloc, "AIRLOCK_RESPONSE_HTTP_HOSTS", services.settings.http_hosts)
    async with services.engine.connect() as connection:
        known = {setting.name for setting in await list_settings(connection) if setting.visibility == "secret"}
    missing = sorted(set(executor.secret_headers.values()) - known)
    return [f"the secret setting {name!r} does not exist yet; until it does, requests fail" for name in missing]


def _check_python(services: Services, executor: PythonExecutor) -> list[str]:
    """Checks only the module's name. Only the worker imports the module."""
    module = executor.function.partition(":")[0]
    if module not in services.settings.python_executors:
        allowed = services.settings.python_executors
        raise _not_configured("function", module, "AIRLOCK_RESPONSE_PYTHON_EXECUTORS", allowed)
    return []


def _not_configured(field: str, name: str, variable: str, configured: Iterable[str]) -> InvalidInput:
    message = f"{name!r} is not in {variable}, which has {', '.join(sorted(configured)) or 'no values'}"
    return invalid_fields([(f"executor.{field}", message)])
