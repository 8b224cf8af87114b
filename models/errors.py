"""One hierarchy of errors: what happened, which thing it concerned, what to do."""

from collections.abc import Mapping
from typing import Any, ClassVar


def describe(error: BaseException) -> str:
    """One line that says why: the error's message, or the name of its type where it has none, as httpx's time-outs.

    SQLAlchemy's errors repeat the statement and its parameters; the driver's own message stands for them.
    """
    driver: BaseException | None = getattr(error, "orig", None)
    cause = error if driver is None else driver.__cause__ or driver
    return str(cause).strip().partition("\n")[0].strip() or type(cause).__name__


class AirlockError(Exception):
    """Base of every error that Airlock raises on purpose.

    ``kind`` is the stable end of an RFC 9457 problem type, ``title`` its short, unchanging description and ``status``
    the HTTP status that an API answers with. The message is written for the person who reads it.
    """

    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong inside Airlock"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra: Mapping[str, Any] = extra
        """Members added to the problem document, such as the field that is wrong."""


class InvalidInput(AirlockError):
    """What the caller sent does not fit; nothing was stored."""

    kind, title, status = "invalid-input", "The input is not valid", 422


class NotFound(AirlockError):
    """The named thing does not exist, or not for this caller."""

    kind, title, status = "not-found", "Not found", 404


class Conflict(AirlockError):
    """The thing is in a state that does not allow this."""

    kind, title, status = "conflict", "Conflicts with the present state", 409


class IdempotencyKeyReused(AirlockError):
    """An Idempotency-Key came again with another body."""

    kind, title, status = "idempotency-key-reused", "Idempotency key used for another body", 422


class Unauthenticated(AirlockError):
    """No key, or one that is unknown or no longer active."""

    kind, title, status = "unauthenticated", "A valid API key is needed", 401


class Forbidden(AirlockError):
    """The key is valid, but not for this."""

    kind, title, status = "forbidden", "This key may not do that", 403


class TooLarge(AirlockError):
    """A body or record above its bound."""

    kind, title, status = "too-large", "Larger than allowed", 413


class Unavailable(AirlockError):
    """A part that is needed does not answer now; the same call may be made again."""

    kind, title, status = "unavailable", "Not available now, try again", 503


class ConfigurationError(AirlockError):
    """A setting is missing or wrong; the process cannot do its work until it is mended."""

    kind, title, status = "configuration", "Airlock is not configured rightly", 500
