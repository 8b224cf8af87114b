"""Conditional reads: whether the caller has already what would be sent (RFC 9110, 13.1.2)."""

from typing import Annotated

from fastapi import Header

IfNoneMatch = Annotated[
    str | None, Header(max_length=8000, description="An ETag given before: 304 and no body when nothing has changed")
]


def has_already(if_none_match: str | None, etag: str) -> bool:
    """Whether the header names this ETag, compared weakly: a proxy may have made it weak."""
    if if_none_match is None:
        return False
    named = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return etag.removeprefix("W/") in named or named == ["*"]
