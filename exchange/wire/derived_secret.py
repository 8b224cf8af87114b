"""A secret that all processes of one network share, and nobody else: made from the key that it signs with."""

import hashlib

from exchange.wire.keys import DOMAIN, LinkKeys


def derived_secret(keys: LinkKeys, purpose: str) -> bytes:
    """32 bytes for one purpose, from the present private key: another after a rotation. A hash does not lead back."""
    return hashlib.sha256(DOMAIN + b"secret " + purpose.encode() + b"\n" + keys.signing.private_bytes_raw()).digest()
