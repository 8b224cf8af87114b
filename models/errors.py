"""The errors of Airlock. A message says what happened, to which object, and what to do."""

from collections.abc import Mapping
from typing import Any, ClassVar

from models.error_text import describe as describe


class AirlockError(Exception):
    """Base class of all errors that Airlock raises on purpose.

    ``kind`` is the stable last part of the RFC 9457 problem type, ``title`` its fixed short description, ``status`` the
    HTTP status of the answer. The message is for people.
    """

    kind: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong inside Airlock"
    status: ClassVar[int] = 500

    def __init__(self, message: str, **extra: Any) -> None:
        super().__init__(message)
        self.extra: Mapping[str, Any] = extra
        """Members to add to the problem document, such as the invalid fields."""


class InvalidInput(AirlockError):
    """The caller's input is invalid; nothing was stored."""

    kind, title, status = "invalid-input", "The input is not valid", 422


class NotFound(AirlockError):
    """The named object does not exist, or not for this caller."""

    kind, title, status = "not-found", "Not found", 404


class Conflict(AirlockError):
    """The object's state does not allow this operation."""

    kind, title, status = "conflict", "Conflicts with the present state", 409


class IdempotencyKeyReused(AirlockError):
    """An Idempotency-Key was used again with another body."""

    kind, title, status = "idempotency-key-reused", "Idempotency key used for another body", 422


class Unauthenticated(AirlockError):
    """The API key is missing, unknown or no longer active."""

    kind, title, status = "unauthenticated", "A valid API key is needed", 401


class Forbidden(AirlockError):
    """The API key is valid but does not allow this operation."""

    kind, title, status = "forbidden", "This key may not do that", 403


class TooLarge(AirlockError):
    """A body or record is larger than its limit."""

    kind, title, status = "too-large", "Larger than allowed", 413


class Unavailable(AirlockError):
    """A needed server does not answer now; the same call may be repeated."""

    kind, title, status = "unavailable", "Not available now, try again", 503


class ConfigurationError(AirlockError):
    """A setting is missing or invalid; the process cannot work until it is corrected."""

    kind, title, status = "configuration", "The configuration of Airlock is not valid", 500
