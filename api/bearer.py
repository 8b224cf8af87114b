"""API keys in the header `Authorization: Bearer …`. Only their SHA-256 is known."""

import hashlib

from fastapi import Depends, Request
from fastapi.security import HTTPBearer

from models.errors import Unauthenticated

MAX_KEY_CHARACTERS = 256

bearer_scheme = HTTPBearer(
    scheme_name="apiKey",
    bearerFormat="alk_…",
    description="An API key. Only its SHA-256 is known to Airlock.",
    auto_error=False,
)


def credentials(request: Request) -> tuple[str, str]:
    """Scheme and key of the header `Authorization`. Two such headers are ambiguous: together they are no valid key."""
    scheme, _, key = ", ".join(request.headers.getlist("authorization")).partition(" ")
    return scheme, key.strip()


def key_hash(request: Request) -> bytes:
    """SHA-256 of the API key of this call. Raises `Unauthenticated` if there is none.

    The database looks the hash up. No code compares keys, so the time of an answer reveals nothing of a key.
    """
    scheme, key = credentials(request)
    if scheme.lower() != "bearer" or not key or len(key) > MAX_KEY_CHARACTERS:
        raise Unauthenticated("The API key is missing; send the header Authorization: Bearer <key>")
    return hashlib.sha256(key.encode()).digest()


needs_key = Depends(bearer_scheme)
"""For a router's ``dependencies``: documents in OpenAPI that its routes need a key. `key_hash` checks it."""
