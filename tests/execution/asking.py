"""Requests for the tests of the executors, and results as they would cross."""

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import orjson

from execution.execution_store import FinishedResult, WaitingRequest
from execution.registry import ExecutableType, Executors
from models.executors import HttpExecutor, PythonExecutor, SqlExecutor
from models.parameters import ParameterCheck
from models.requests import Limits, ResultBody


def sql(query: str, source: str = "data") -> SqlExecutor:
    return SqlExecutor(source=source, query=query)


def python(name: str) -> PythonExecutor:
    return PythonExecutor(function=f"tests.execution.functions:{name}")


def kind(
    executor: SqlExecutor | HttpExecutor | PythonExecutor,
    limits: Limits | None = None,
    schema: dict[str, Any] | None = None,
    name: str = "asked",
    version: int = 1,
) -> ExecutableType:
    """A request type as the worker knows it."""
    check = ParameterCheck(schema or {"type": "object"})
    return ExecutableType(name, version, limits or Limits(), check, executor)


def request(params: object = None, *, deadline_passed: bool = False, cancelled: bool = False) -> WaitingRequest:
    return WaitingRequest(uuid4(), "asked", orjson.dumps(params or {}), deadline_passed, cancelled)


async def ask(
    executors: Executors, asked: ExecutableType, params: object = None, secrets: Mapping[str, str] | None = None
) -> tuple[FinishedResult, ResultBody]:
    """The result of one request of this type, and its body as the other side reads it."""
    finished = await executors.result(request(params), {"asked": asked}, secrets or {})
    assert b"\n" not in finished.body, "a record is a line"
    orjson.loads(finished.body)
    return finished, ResultBody.model_validate_json(finished.body)


async def failure(
    executors: Executors, asked: ExecutableType, params: object = None, secrets: Mapping[str, str] | None = None
) -> tuple[str, str]:
    """Reason and message of a result that must have failed."""
    finished, body = await ask(executors, asked, params, secrets)
    assert (finished.status, body.status, body.data, body.returned) == ("failed", "failed", [], 0)
    assert body.error is not None
    assert body.error.reason == finished.reason
    return body.error.reason, body.error.message
