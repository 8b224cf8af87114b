"""Reports JSON that PostgreSQL cannot store, such as a NUL character in a string, as invalid input."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError

from api.problems import invalid_fields

DATA_EXCEPTION, LIMIT_EXCEEDED = "22", "54"
"""Classes of SQLSTATE."""


@contextmanager
def storable(field: str) -> Iterator[None]:
    """Raises `InvalidInput` naming the field if the database cannot store its value."""
    try:
        yield
    except DBAPIError as error:
        if str(getattr(error.orig, "sqlstate", None) or "")[:2] not in (DATA_EXCEPTION, LIMIT_EXCEEDED):
            raise
        message = (
            "the database cannot store this value (does it have a NUL character, a lone surrogate or deep nesting?)"
        )
        raise invalid_fields([(field, message)]) from error
