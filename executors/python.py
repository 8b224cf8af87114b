"""The python executor: a function of the operator's own, from a module that the configuration names."""

import asyncio
import importlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from executors.answer import Answer, ExecutionFailed, rows_wanted, to_json
from models.executors import PythonExecutor
from models.requests import Limits


class PythonFunctions:
    """Functions of the allowed modules. A plain function runs in a thread, an ``async`` one on the loop."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = frozenset(modules)

    async def execute(self, spec: PythonExecutor, params: dict[str, Any], limits: Limits) -> Answer:
        """Call the function; it returns rows (any iterable of what JSON can say) or an `Answer`.

        Raises `ExecutionFailed`. A plain function that exceeds its time is answered for, though its thread runs on.
        """
        function = self._find(spec.function)
        try:
            if inspect.iscoroutinefunction(function):
                returned = await function(**params)
            else:
                returned = await asyncio.to_thread(lambda: function(**params))
        except ExecutionFailed:
            raise
        except TypeError as error:
            raise ExecutionFailed("invalid-params", f"the function does not take these parameters: {error}") from error
        except Exception as error:  # the function is not ours: whatever it raises is a failed result, with its kind
            raise ExecutionFailed("function-failed", f"the function raised {type(error).__name__}: {error}") from error
        if isinstance(returned, Answer):
            return returned
        try:
            rows = list(returned)
        except TypeError:
            raise ExecutionFailed("answer-not-rows", "the function did not return rows") from None
        return Answer([to_json(row) for row in rows[: rows_wanted(limits, params) + 1]], len(rows))

    def _find(self, name: str) -> Callable[..., Any]:
        module_name, _, function_name = name.partition(":")
        if module_name not in self._modules:
            raise ExecutionFailed("module-not-allowed", "the module of this request type is not allowed")
        try:
            found = getattr(importlib.import_module(module_name), function_name)
        except (ImportError, AttributeError) as error:
            raise ExecutionFailed(
                "function-missing", f"the function of this request type is missing: {error}"
            ) from None
        if not callable(found):
            raise ExecutionFailed("function-missing", "the function of this request type is not callable")
        function: Callable[..., Any] = found
        return function
