"""Logs: one structured line per event, readable in a terminal or JSON for a collector (``AIRLOCK_LOG_FORMAT``).

INFO is for an operator: a process started or stopped, a setting or a key changed, an alert was cleared. WARN and above
ask for a look; a healthy system writes none. Work that goes on as it should, such as a batch that was taken, is DEBUG.
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
"""An outage that is over within this time needs nobody: both networks start at the same time, or one restarts."""

NOISY = ("httpx", "httpcore", "alembic", "asyncio", "_granian", "granian.access", "temporalio")
"""Libraries whose INFO lines tell an operator nothing. `temporalio` has both halves of its SDK below it."""


class OutageLog:
    """Logs what is tried again and again: a warning when it keeps failing, a line when it works again.

    Failures in between are logged at DEBUG. ``event`` names the thing and its trouble: ``link.away``.
    """

    def __init__(self, event: str, back: str, logger: Any) -> None:
        self._event, self._back, self._log = event, back, logger
        self._since: float | None = None
        self._told: str | None = None

    def failed(self, error: Exception, passes: bool = True, **fields: Any) -> None:
        """Another attempt failed. ``passes``: the error often passes by itself, and gets `GRACE_SECONDS` to do so.

        An error of another type than the one that was told is told as well.
        """
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        kind = type(error).__name__
        tell = kind != self._told and not (passes and now - self._since < GRACE_SECONDS)
        self._told = kind if tell else self._told
        (self._log.warning if tell else self._log.debug)(self._event, reason=describe(error), **fields)

    def succeeded(self, **fields: Any) -> None:
        """An attempt succeeded: what was told is over."""
        if self._told is not None and self._since is not None:
            self._log.info(self._back, after_seconds=round(time.monotonic() - self._since, 1), **fields)
        self._since = self._told = None


def configure_logs(form: Literal["console", "json"] | None = None, level: str | None = None) -> None:
    """Send structlog and the standard library's loggers through one renderer to standard output."""
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
                exception_formatter=structlog.dev.plain_traceback,  # the rich one prints variables, so secrets
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
    """Add the fields of a line that Temporal's SDK forwarded (`temporalio.runtime.LogForwardingConfig`)."""
    forwarded = getattr(event.get("_record"), "temporal_log", None)
    if forwarded is not None:
        event.update({name: value for name, value in forwarded.fields.items() if value}, target=forwarded.target)
    return event
