"""The text of any error, without the data that the error quotes.

Drivers quote what they were given: parameters, rows that a constraint refused, invalid values, commands, URLs with
passwords. These texts go to logs, to Temporal's histories and to alerts, where rows and secrets must not be.
"""

import re
import traceback
from collections.abc import Iterator

from models.printable import printable

DATA_STATES = ("22", "38", "39", "44", "P0")
"""Classes of SQLSTATE whose message quotes data: wrong values, and what functions and triggers raise."""
SYNTAX_ERROR = "42601"
"""Its message quotes the statement."""
MAX_PROBLEMS = 3
"""Invalid fields that are named."""

_CREDENTIALS = re.compile(r"(\w://)[^\s/@]+@")
_QUERY = re.compile(r"(\w://[^\s?#'\"]*)[?#][^\s'\"]*")
_REDIS_CODE = re.compile(r"[A-Z]{2,20}")
_REDIS_CONNECTION = ("ConnectionError", "TimeoutError", "MaxConnectionsError", "BusyLoadingError")


def describe(error: BaseException) -> str:
    """One line about an error, or the name of its type if it has no message, as in httpx's timeouts.

    It contains no parameters, rows, invalid values, or credentials and queries of URLs.
    """
    text = _message(error).strip().partition("\n")[0].strip()
    return _QUERY.sub(r"\1?…", _CREDENTIALS.sub(r"\1…@", text)) or type(error).__name__


def stack_trace(error: BaseException) -> str:
    """The stack trace of an error and of its causes, as Python prints it, but with `describe` for each message."""
    return "\n".join(_lines(error, set()))


def _message(error: BaseException) -> str:
    # SQLAlchemy's error repeats the statement. Its ``orig`` is the adapter's error, whose cause is the driver's.
    adapter: BaseException | None = getattr(error, "orig", None)
    cause = error if adapter is None else adapter.__cause__ or adapter
    room = type(cause).__module__.partition(".")[0]
    if isinstance(getattr(cause, "sqlstate", None), str):
        return _of_database(cause)
    if room in ("pydantic", "pydantic_core") and hasattr(cause, "errors"):
        return _of_pydantic(cause)
    if room == "jsonschema_rs":
        path = "".join(f"/{part}" for part in getattr(cause, "instance_path", ()))
        return f"the value at {path or '/'} does not fit its schema"
    if room == "redis" and type(cause).__name__ not in _REDIS_CONNECTION:
        return _of_redis(cause)
    if room == "sqlalchemy":
        return str(cause).partition("\n[")[0]  # before the statement and its parameters
    return str(cause)


def _of_database(error: BaseException) -> str:
    """The server's message where it names only tables, columns and the like; otherwise the kind of error."""
    state = str(getattr(error, "sqlstate", ""))
    # The driver quotes arguments that it cannot encode. An error with a context was raised in a function or trigger.
    if not state.startswith(DATA_STATES) and state != SYNTAX_ERROR and not getattr(error, "context", None):
        return str(error).partition("\n")[0]  # the lines behind it, DETAIL and HINT, quote rows
    names = (str(getattr(error, name, None) or "") for name in ("schema_name", "table_name", "constraint_name"))
    place = ".".join(name for name in names if name)
    return f"{type(error).__name__} (SQLSTATE {state}{', ' + place if place else ''})"


def _of_pydantic(error: BaseException) -> str:
    found = error.errors(include_input=False, include_url=False, include_context=False)  # type: ignore[attr-defined]
    problems = [
        f"{'.'.join(str(part)[:60] for part in item['loc'])}: {item['msg']}" if item["loc"] else str(item["msg"])
        for item in found[:MAX_PROBLEMS]
    ]
    more = f"; and {len(found) - MAX_PROBLEMS} more" if len(found) > MAX_PROBLEMS else ""
    return "; ".join(problems) + more


def _of_redis(error: BaseException) -> str:
    """The code that Redis gave. The rest of the message may quote the command with its key and value."""
    told = str(error)
    code = _REDIS_CODE.match(told.rpartition(" of pipeline caused error: ")[2].lstrip("('\""))
    return f"{type(error).__name__} ({code[0]})" if code else type(error).__name__


def _lines(error: BaseException, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    earlier = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if earlier is not None and id(earlier) not in seen:
        yield from _lines(earlier, seen)
        link = "This led to:" if error.__cause__ is earlier else "While that was handled, this happened:"
        yield f"\n{link}\n"
    if error.__traceback__ is not None:
        yield "Traceback (most recent call last):"
        yield "".join(traceback.format_tb(error.__traceback__)).rstrip("\n")
    yield f"{type(error).__module__}.{type(error).__qualname__}: {printable(describe(error))}"
    for inner in getattr(error, "exceptions", ()):
        if isinstance(inner, BaseException) and id(inner) not in seen:
            yield from ("  | " + line for part in _lines(inner, seen) for line in part.split("\n"))
