"""Runs one request with the executor of its type. Every request gets a result: completed, or failed with a reason."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import structlog

from cache.redis_cache import Cache, answer_key
from execution.answer import Answer, ExecutionFailed, completed, not_completed, rows_wanted
from execution.execution_store import FinishedResult, WaitingRequest
from execution.http import HttpCalls
from execution.python import PythonFunctions
from execution.sql import SqlSources
from models.executors import HttpExecutor, PythonExecutor, SqlExecutor
from models.parameters import ParameterCheck
from models.requests import Limits, RequestStatus
from storage.database import is_unreachable

log = structlog.get_logger(__name__)

ATTEMPTS = 3
"""Attempts to reach a source or service before the request fails."""
PAUSE_SECONDS = 1.0
"""Pause before the second attempt; twice as long before the third."""


@dataclass(frozen=True)
class ExecutableType:
    """An active request type with its executor."""

    name: str
    version: int
    limits: Limits
    check: ParameterCheck
    executor: SqlExecutor | HttpExecutor | PythonExecutor


@dataclass(frozen=True)
class Executors:
    """All three executors, owned by a worker."""

    sql: SqlSources
    http: HttpCalls
    python: PythonFunctions
    cache: Cache

    async def aclose(self) -> None:
        await self.sql.aclose()
        await self.http.aclose()
        self.python.close()

    async def result(
        self, request: WaitingRequest, types: Mapping[str, ExecutableType], secrets: Mapping[str, str]
    ) -> FinishedResult:
        """Execute one request. An error becomes a failed result."""
        started = time.perf_counter()
        kind = types.get(request.type)
        total: int | None = None
        returned = 0
        try:
            if request.cancelled:
                raise _Closed(RequestStatus.CANCELLED, "cancelled", "the request was cancelled by its owner")
            if request.deadline_passed:
                raise _Closed(RequestStatus.EXPIRED, "expired", "the deadline passed before the request was executed")
            if kind is None:
                raise ExecutionFailed("unknown-type", f"there is no active request type {request.type!r}")
            params: dict[str, Any] = orjson.loads(request.params)
            if (problem := kind.check.problem(params)) is not None:
                raise ExecutionFailed("invalid-params", ": ".join(problem))
            answer = await self._answer(kind, params, secrets)
            wanted = rows_wanted(kind.limits, params)
            body, returned = completed(request.request_id, answer, kind.limits, wanted, _ms(started))
            total, status, reason = answer.total, RequestStatus.COMPLETED, None
        except _Closed as closed:
            status, reason = closed.status, closed.reason
            body = not_completed(request.request_id, status, reason, str(closed))
        except ExecutionFailed as failed:
            status, reason = RequestStatus.FAILED, failed.reason
            body = not_completed(request.request_id, status, reason, str(failed), _ms(started))
        except Exception as error:  # every request must get a result
            log.exception("execution.broke", request_id=str(request.request_id), type=request.type)
            status, reason = RequestStatus.FAILED, "executor-failed"
            message = f"the executor failed with {type(error).__name__}; the response network's log says more"
            body = not_completed(request.request_id, status, reason, message, _ms(started))
        return FinishedResult(request.request_id, request.type, status, reason, returned, total, _ms(started), body)

    async def _answer(self, kind: ExecutableType, params: dict[str, Any], secrets: Mapping[str, str]) -> Answer:
        """The answer, from the cache if the type allows reuse."""
        if not kind.limits.reuse:
            return await self._execute(kind, params, secrets)
        digest = hashlib.sha256(orjson.dumps(params, option=orjson.OPT_SORT_KEYS)).hexdigest()
        key = answer_key(kind.name, kind.version, digest)
        if (kept := await self.cache.get(key)) is not None:
            try:
                return Answer.from_bytes(kept)
            except ValueError:
                log.warning("execution.cached_answer_unreadable", key=key)
        answer = await self._execute(kind, params, secrets)
        await self.cache.put(key, answer.to_bytes(), kind.limits.reuse)
        return answer

    async def _execute(self, kind: ExecutableType, params: dict[str, Any], secrets: Mapping[str, str]) -> Answer:
        """Run the executor, again if its source does not answer. The type's timeout holds for each attempt."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(kind.limits.timeout + 1) as limit:
                    return await self._once(kind, params, secrets)
            except Exception as error:
                if limit.expired() or isinstance(error, httpx.TimeoutException):
                    message = f"the execution took longer than {kind.limits.timeout:g} s"
                    raise ExecutionFailed("timeout", message) from error
                if not (is_unreachable(error) or isinstance(error, httpx.HTTPError | OSError)):
                    raise
                log.warning("execution.source_away", type=kind.name, attempt=attempt, error=type(error).__name__)
                if attempt == ATTEMPTS:
                    raise ExecutionFailed(
                        "source-unavailable", f"the source did not answer in {ATTEMPTS} attempts"
                    ) from error
                await asyncio.sleep(PAUSE_SECONDS * attempt)
        raise AssertionError("the loop returns or raises")

    async def _once(self, kind: ExecutableType, params: dict[str, Any], secrets: Mapping[str, str]) -> Answer:
        match kind.executor:
            case SqlExecutor() as spec:
                return await self.sql.execute(spec, params, kind.limits)
            case HttpExecutor() as spec:
                return await self.http.execute(spec, params, kind.limits, secrets)
            case PythonExecutor() as spec:
                return await self.python.execute(spec, params, kind.limits)


class _Closed(Exception):
    def __init__(self, status: RequestStatus, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
