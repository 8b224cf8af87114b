"""An HMAC over messages of the link, both ways. Used in both virtual environments; standard library only.

Celery's documentation does not mention this. Without it, a link that changes bytes would alter requests and results.
With TLS instead, the proxy could not inject the same faults as for Airlock.
"""

import hashlib
import hmac

HEADER = "Link-Signature"


def sign(key: str, method: str, target: str, body: bytes) -> str:
    """The signature of a request, or of its answer: then ``body`` is the answer's."""
    return hmac.new(key.encode(), b"\n".join((method.encode(), target.encode(), body)), hashlib.sha256).hexdigest()


def fits(key: str, method: str, target: str, body: bytes, signature: str) -> bool:
    """Whether the signature matches."""
    return hmac.compare_digest(sign(key, method, target, body).encode(), signature.encode())
