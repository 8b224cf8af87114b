"""The python executor: calls an operator's function in a module that the configuration allows."""

import asyncio
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog

from execution.answer import MAX_TOTAL, Answer, ExecutionFailed, json_rows, one_line, rows_wanted
from models.executors import PythonExecutor
from models.requests import Limits

log = structlog.get_logger(__name__)

THREADS = 32
"""A separate pool, so that functions that hang do not block the rest of the worker."""
_REASON = re.compile(r"[a-z][a-z0-9-]{0,63}")
RAISED = (Exception, SystemExit, KeyboardInterrupt)
"""Exceptions of a function that must not end the worker."""


class PythonFunctions:
    """Functions of the allowed modules. A plain function runs in a thread, an ``async`` one on the event loop."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = frozenset(modules)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="python-executor")

    def close(self) -> None:
        """Start no more functions. Does not wait for those that run."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def execute(self, spec: PythonExecutor, params: dict[str, Any], limits: Limits) -> Answer:
        """Call the function. It returns rows, an iterable of JSON values, or an `Answer`.

        Raises `ExecutionFailed` with only the type of the function's exception, since its text may be secret. To tell
        the request's owner more, the function itself raises `ExecutionFailed`. After the timeout the request fails, but
        the thread of a plain function runs on.
        """
        function = self._find(spec.function)
        _takes(function, params)
        wanted = rows_wanted(limits, params)
        if not inspect.iscoroutinefunction(function):
            return await self._in_thread(lambda: _answer(function(**params), wanted, limits.bytes))
        try:
            returned = await function(**params)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            raise ExecutionFailed("function-failed", "the function cancelled itself") from None
        except RAISED as error:
            raise _explained(error) from error
        return await self._in_thread(lambda: _answer(returned, wanted, limits.bytes))

    async def _in_thread(self, work: Callable[[], Answer]) -> Answer:
        def caught() -> Answer | BaseException:
            try:
                return work()
            except BaseException as error:  # SystemExit in a future would end the loop; StopIteration would be lost
                return error

        outcome = await asyncio.get_running_loop().run_in_executor(self._threads, caught)
        if isinstance(outcome, BaseException):
            raise _explained(outcome) from outcome
        return outcome

    def _find(self, name: str) -> Callable[..., Any]:
        module_name, _, function_name = name.partition(":")
        if module_name not in self._modules:
            raise ExecutionFailed("module-not-allowed", "the module of this request type is not allowed")
        try:
            found = getattr(importlib.import_module(module_name), function_name)
        except RAISED as error:  # importing runs the module
            log.exception("execution.function_missing", function=name)
            raise ExecutionFailed(
                "function-missing", f"the function of this request type cannot be found ({type(error).__name__})"
            ) from error
        if not callable(found):
            raise ExecutionFailed("function-missing", "the function of this request type is not callable")
        function: Callable[..., Any] = found
        return function


def _takes(function: Callable[..., Any], params: dict[str, Any]) -> None:
    try:
        inspect.signature(function).bind(**params)
    except ValueError:  # a built-in without a signature
        return
    except TypeError as error:
        raise ExecutionFailed("invalid-params", f"the function does not take these parameters: {error}") from error


def _explained(error: BaseException) -> ExecutionFailed:
    if isinstance(error, ExecutionFailed) and _REASON.fullmatch(error.reason):
        return error
    log.error("execution.function_failed", exc_info=error)
    name = type(error).__name__
    return ExecutionFailed("function-failed", f"the function raised {name}; the response network's log says more")


def _answer(returned: Any, wanted: int, most_bytes: int) -> Answer:
    """The returned value as an `Answer`. From an iterator, rows are taken until a limit is exceeded; its total is then
    unknown.
    """
    if isinstance(returned, Answer):
        total = returned.total
        if total is not None and not (isinstance(total, int) and 0 <= total <= MAX_TOTAL):
            raise ExecutionFailed("answer-not-rows", "the total of the function's answer is not a count of rows")
        return Answer([one_line(row) for row in returned.rows[: wanted + 1]], total)
    if isinstance(returned, str | bytes | dict) or not isinstance(returned, Iterable):
        raise ExecutionFailed("answer-not-rows", "the function did not return rows")
    remaining = iter(returned)
    rows = json_rows(remaining, wanted, most_bytes)
    if isinstance(returned, Sized):
        return Answer(rows, len(returned))
    within = len(rows) <= wanted and sum(map(len, rows)) + len(rows) <= most_bytes
    return Answer(rows, len(rows) if within else None)
