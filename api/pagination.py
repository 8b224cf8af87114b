"""Lists by pages: a cursor says where the next page begins, stays right while rows are added, and tells no more."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from models.errors import InvalidInput

Item = TypeVar("Item")

PageLimit = Annotated[int, Query(ge=1, le=500, description="Items on a page at most")]
_CURSOR = {"pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}
"""Sixteen bytes in base64url. Said in the document only: `decode_cursor` has the better message."""

PageCursor = Annotated[
    Annotated[str, Field(json_schema_extra=_CURSOR)] | None,
    Query(description="`next_cursor` of the page before; leave it out for the first page"),
]
DEFAULT_LIMIT = 50


class Page(BaseModel, Generic[Item]):
    """One page. Inherit from it with the type of an item, so that the page has a name of its own in OpenAPI."""

    items: list[Item]
    next_cursor: str | None = Field(description="Ask with this for the next page; null on the last")


def encode_cursor(position: UUID) -> str:
    """An opaque cursor that stands behind the item of this id."""
    return base64.urlsafe_b64encode(position.bytes).rstrip(b"=").decode()


def decode_cursor(cursor: str | None) -> UUID | None:
    """The id that a cursor stands behind. Raises `InvalidInput` for one that was not given out here."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor.encode() + b"==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        message = "not a cursor of this list; leave it out to begin with the first page"
        raise InvalidInput(f"cursor: {message}", errors=[{"field": "cursor", "message": message}]) from None


def cut(found: Sequence[Item], limit: int, position: Callable[[Item], UUID]) -> tuple[Sequence[Item], str | None]:
    """A page and its next cursor from up to ``limit`` + 1 items: one more than fits means that there is a next page."""
    if len(found) <= limit:
        return found, None
    return found[:limit], encode_cursor(position(found[limit - 1]))
