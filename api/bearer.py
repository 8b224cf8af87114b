"""The key that a caller presents: `Authorization: Bearer …`, known here only by its SHA-256."""

import hashlib
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from starlette.datastructures import Headers

from models.errors import Unauthenticated

MAX_KEY_CHARACTERS = 256

bearer_scheme = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="alk_…",
    description="An API key. Only its SHA-256 is known to Airlock.",
    auto_error=False,
)


async def presented_key_hash(request: Request) -> bytes:
    """SHA-256 of the presented key; raises `Unauthenticated` where there is none.

    The database looks the hash up. No key is ever compared in Python, so how long an answer takes tells nothing of one.
    """
    found = key_hash(request.headers)
    if not found:
        raise Unauthenticated("No API key; send the header Authorization: Bearer <key>")
    return found


def key_hash(headers: Headers) -> bytes | None:
    """SHA-256 of the key that came with these headers; None where there is none."""
    given = ", ".join(headers.getlist("authorization"))  # two of them are none: who takes which is a riddle
    scheme, _, key = given.partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_CHARACTERS:
        return None
    return hashlib.sha256(key.encode()).digest()


KeyHash = Annotated[bytes, Depends(presented_key_hash)]
"""A route's or a dependency's parameter: the hash of the key that came with the request."""

needs_key = Depends(bearer_scheme)
"""For ``dependencies`` of a router: says in OpenAPI that its routes need a key. `KeyHash` is what checks."""
