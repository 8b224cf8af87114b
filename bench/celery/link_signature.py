"""An HMAC over what crosses the link, both ways. Used in both virtual environments; standard library only.

Celery's documentation has nothing to say of it. Without it, a link that changes bytes would alter requests and
results, which anyone who links two networks sees to, with TLS or with this; with TLS the faults of the proxy
could not be the same as for Airlock.
"""

import hashlib
import hmac

HEADER = "Link-Signature"


def sign(key: str, method: str, target: str, body: bytes) -> str:
    """For a request: its method, path with query, and body. For its answer: the same with the answer's body."""
    return hmac.new(key.encode(), b"\n".join((method.encode(), target.encode(), body)), hashlib.sha256).hexdigest()


def fits(key: str, method: str, target: str, body: bytes, signature: str) -> bool:
    """Whether the signature is that of these bytes."""
    return hmac.compare_digest(sign(key, method, target, body).encode(), signature.encode())
