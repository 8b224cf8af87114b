"""Pages of lists. A cursor is the position of a page's last item, and stays valid while rows are added."""

import base64
import binascii
from typing import Annotated, Generic, Self, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from api.problems import invalid_fields


class PageItem(BaseModel):
    """An item of a list that is sorted by request id."""

    request_id: UUID


Item = TypeVar("Item", bound=PageItem)

PageLimit = Annotated[int, Query(ge=1, le=500, description="Maximum of items on a page")]
_CURSOR = {"pattern": "^[A-Za-z0-9_-]{21}[AQgw]$"}
"""Sixteen bytes in base64url. Only for the document: `decode_cursor` gives the better message."""

PageCursor = Annotated[
    Annotated[str, Field(json_schema_extra=_CURSOR)] | None,
    Query(description="`next_cursor` of the previous page; omit it for the first page"),
]
DEFAULT_LIMIT = 50


class Page(BaseModel, Generic[Item]):
    """One page. Derive a class for each type of item, so that the page has its own name in OpenAPI."""

    items: list[Item]
    next_cursor: str | None = Field(description="The cursor of the next page; null on the last page")

    @classmethod
    def of(cls, items: list[Item], limit: int) -> Self:
        """A page from up to ``limit`` + 1 items. The extra item shows that there is a next page."""
        if len(items) <= limit:
            return cls(items=items, next_cursor=None)
        last = items[limit - 1].request_id
        return cls(items=items[:limit], next_cursor=base64.urlsafe_b64encode(last.bytes).rstrip(b"=").decode())


def decode_cursor(cursor: str | None) -> UUID | None:
    """The item id of a cursor. Raises `InvalidInput` for an invalid cursor."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor.encode() + b"==", altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise invalid_fields([("cursor", "not a cursor of this list; omit it for the first page")]) from None
