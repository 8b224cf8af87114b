"""Logs: one structured line per event, for a terminal or as JSON (``AIRLOCK_LOG_FORMAT``).

INFO is for an operator: a process started or stopped, a setting or a key changed, an alert was cleared. A line at WARN
or above needs attention; a healthy system writes none. Normal work, such as a batch that was pulled, is DEBUG.
"""

import logging
import os
import sys
import time
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor

from models.errors import describe

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


def configure_logs(form: Literal["console", "json"] | None = None, level: str | None = None) -> None:
    """Write the lines of structlog and of the standard library's loggers to standard output in one form."""
    form = form or ("json" if os.environ.get("AIRLOCK_LOG_FORMAT", "").lower() == "json" else "console")
    level = (level or os.environ.get("AIRLOCK_LOG_LEVEL") or "INFO").upper()
    shared: list[Processor] = [
        _fields_of_sdk,
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    render: list[Processor] = (
        [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
        if form == "json"
        else [
            structlog.dev.ConsoleRenderer(
                colors=sys.stdout.isatty(),
                pad_event_to=0,
                pad_level=False,
                exception_formatter=structlog.dev.plain_traceback,  # the rich one prints variables: secrets
            )
        ]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(allow=[])],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel("WARNING")


def _fields_of_sdk(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the fields of a line from Temporal's SDK (`temporalio.runtime.LogForwardingConfig`)."""
    forwarded = getattr(event.get("_record"), "temporal_log", None)
    if forwarded is not None:
        event.update({name: value for name, value in forwarded.fields.items() if value}, target=forwarded.target)
    return event
