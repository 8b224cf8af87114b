"""Conditional reads with If-None-Match (RFC 9110, 13.1.2)."""

from typing import Annotated

from fastapi import Header

IfNoneMatch = Annotated[
    str | None, Header(max_length=8000, description="An earlier ETag; if it is still valid, the answer is 304")
]


def is_current(if_none_match: str | None, etag: str) -> bool:
    """Whether the header names this ETag. The comparison is weak, since a proxy may have made the ETag weak."""
    named = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return etag.removeprefix("W/") in named or named == ["*"]
