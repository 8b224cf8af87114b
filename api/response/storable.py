"""JSON that PostgreSQL cannot keep, such as a NUL character in a string, is the caller's to mend."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from models.errors import InvalidInput

DATA_EXCEPTION, LIMIT_EXCEEDED = "22", "54"
"""Classes of SQLSTATE."""


@contextmanager
def storable(field: str) -> Iterator[None]:
    """Raises `InvalidInput` naming the field when the database refuses what is to be stored."""
    try:
        yield
    except DBAPIError as error:
        if str(getattr(error.orig, "sqlstate", None) or "")[:2] not in (DATA_EXCEPTION, LIMIT_EXCEEDED):
            raise
        message = "the database cannot store this value (a NUL character, a lone surrogate or nesting too deep?)"
        raise invalid(field, message) from error


def invalid(field: str, message: str) -> InvalidInput:
    """An error that names the field."""
    return InvalidInput(f"{field}: {message}", errors=[{"field": field, "message": message}])
