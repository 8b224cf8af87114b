"""Logs: one structured line per event, for a terminal or as JSON (``AIRLOCK_LOG_FORMAT``).

INFO is for an operator: a process started or stopped, a setting or a key changed, an alert was cleared. A line at WARN
or above needs attention; a healthy system writes none. Normal work, such as a batch that was pulled, is DEBUG.

A line holds no parameters and rows that an error quotes (`models.error_text`), and nothing that controls a terminal.
"""

import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor

from models.error_text import describe, stack_trace
from models.printable import printable

GRACE_SECONDS = 10.0
"""A shorter outage is not logged, as when one network starts a little after the other."""

NOISY = ("httpx", "httpcore", "alembic", "asyncio", "_granian", "granian.access", "temporalio")
"""Libraries whose INFO lines do not help an operator."""


class OutageLog:
    """Logs repeated attempts: one warning when they keep failing, one line when they succeed again.

    Other failures are logged at DEBUG. ``event`` and ``back`` name the two lines: ``link.away``, ``link.back``.
    """

    def __init__(self, event: str, back: str, logger: Any) -> None:
        self._event, self._back, self._log = event, back, logger
        self._since: float | None = None
        self._told: str | None = None

    def failed(self, error: Exception, passes: bool = True, **fields: Any) -> None:
        """Log a failure. ``passes``: the error often passes by itself, so a warning comes only after `GRACE_SECONDS`.

        An error of another type gets a warning of its own.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        kind = type(error).__name__
        tell = kind != self._told and not (passes and now - self._since < GRACE_SECONDS)
        self._told = kind if tell else self._told
        (self._log.warning if tell else self._log.debug)(self._event, reason=describe(error), **fields)

    def succeeded(self, **fields: Any) -> None:
        """Log the end of an outage that was logged."""
        if self._told is not None and self._since is not None:
            self._log.info(self._back, after_seconds=round(time.monotonic() - self._since, 1), **fields)
        self._since = self._told = None


def configure_logs(
    form: Literal["console", "json"] | None = None, level: str | None = None, stream: TextIO | None = None
) -> None:
    """Write the lines of structlog and of the standard library's loggers in one form, to standard output by default.

    Errors that nobody catches are logged too, instead of being printed with their messages.
    """
    form = form or ("json" if os.environ.get("AIRLOCK_LOG_FORMAT", "").lower() == "json" else "console")
    level = (level or os.environ.get("AIRLOCK_LOG_LEVEL") or "INFO").upper()
    stream = stream or sys.stdout
    shared: list[Processor] = [
        _fields_of_sdk,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: Processor = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            pad_event_to=0,
            pad_level=False,
            exception_formatter=structlog.dev.plain_traceback,  # `_with_stack_trace` has written it already
        )
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=[])],
            processors=[
                _without_repr,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _printable,
                _with_stack_trace,
                render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel("WARNING")
    sys.excepthook = _uncaught
    threading.excepthook = lambda seen: _uncaught(seen.exc_type, seen.exc_value, seen.exc_traceback)


def _fields_of_sdk(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the fields of a line from Temporal's SDK (`temporalio.runtime.LogForwardingConfig`)."""
    forwarded = getattr(event.get("_record"), "temporal_log", None)
    if forwarded is not None:
        event.update({name: value for name, value in forwarded.fields.items() if value}, target=forwarded.target)
    return event


def _without_repr(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Keep the first line of asyncio's messages: the others are the repr of a task with its error."""
    if getattr(event.get("_record"), "name", "") == "asyncio":
        event["event"] = str(event["event"]).partition("\n")[0]
    return event


def _with_stack_trace(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Replace the error of a line by its stack trace: messages as `describe` gives them, no variables."""
    error: Any = event.pop("exc_info", None)
    if error is True:
        error = sys.exc_info()
    if isinstance(error, tuple):
        error = error[1]
    if isinstance(error, BaseException):
        event["exception"] = stack_trace(error)
    return event


def _printable(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what could control a terminal or begin another line, in names and values."""
    return {printable(str(name)): value if name == "exc_info" else _escaped(value) for name, value in event.items()}


def _escaped(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {printable(str(name)): _escaped(item) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_escaped(item) for item in value]
    return printable(describe(value) if isinstance(value, BaseException) else str(value))


def _uncaught(kind: type[BaseException], error: BaseException | None, _traceback: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, SystemExit | KeyboardInterrupt):
        structlog.get_logger(__name__).critical("process.broke", exc_info=error)
