"""Signatures over the link's HTTP messages, both ways.

A request's signature covers the link, method, target, time, nonce and the SHA-256 of the body. A response's covers the
request's signature, the status and the SHA-256 of its body, so an answer is valid for one request only. The header is
``Airlock-Signature: key=<id>; time=<unix seconds>; nonce=<hex>; value=<base64>``.
"""

import base64
import binascii
import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from typing import TypeVar

from exchange.errors import BadSignature, ClockSkew
from exchange.wire.keys import LinkKeys
from exchange.wire.messages import Signed

Message = TypeVar("Message", bound=Signed)

HEADER = "Airlock-Signature"
_FORM = re.compile(
    r"key=(?P<key>[0-9a-f]{16}); time=(?P<time>[0-9]{1,12}); nonce=(?P<nonce>[0-9a-f]{32});"
    r" value=(?P<value>[A-Za-z0-9+/=]{88})"
)


@dataclass(frozen=True)
class HttpSigner:
    """Signs and verifies for one network. ``clock_skew`` in seconds."""

    keys: LinkKeys
    link_id: str
    clock_skew: float = 300.0

    async def know(self, header: str) -> None:
        """Load the signing key if it is new. Call this before verifying."""
        if found := _FORM.fullmatch(header):
            await self.keys.know(found["key"])

    def sign_request(self, method: str, target: str, body: bytes) -> str:
        """The header's value for a request. ``target`` is the path with its query, as sent."""
        moment, nonce = str(int(time.time())), secrets.token_hex(16)
        return self._header("request", self._request_text(method, target, body, moment, nonce), moment, nonce)

    def check_header(self, header: str) -> None:
        """Check a header before the body is read. Raises `BadSignature`, `UnknownKey` or `ClockSkew`."""
        key_id, moment, _, signature = self._parse(header)
        if key_id not in self.keys.trusted:
            self.keys.verify("request", b"", key_id, signature)  # raises an error that says why
        self._check_time(moment)

    def verify_request(self, header: str, method: str, target: str, body: bytes) -> None:
        """Raises `BadSignature`, `UnknownKey` or `ClockSkew`."""
        key_id, moment, nonce, signature = self._parse(header)
        self.keys.verify("request", self._request_text(method, target, body, moment, nonce), key_id, signature)
        self._check_time(moment)

    def sign_response(self, request_header: str, status: int, body: bytes) -> str:
        """The header's value for the answer to the request with ``request_header``."""
        moment, nonce = str(int(time.time())), secrets.token_hex(16)
        return self._header("response", self._response_text(request_header, status, body, moment, nonce), moment, nonce)

    def verify_response(self, header: str, request_header: str, status: int, body: bytes) -> None:
        """Raises `BadSignature`, `UnknownKey` or `ClockSkew`."""
        key_id, moment, nonce, signature = self._parse(header)
        self.keys.verify(
            "response", self._response_text(request_header, status, body, moment, nonce), key_id, signature
        )
        self._check_time(moment)

    def opened(self, kind: type[Message], wire: bytes) -> Message:
        """A signed message that came just now: verified, and of a time that agrees with ours.

        Raises `Malformed`, `UnsupportedVersion`, `UnknownKey`, `BadSignature` or `ClockSkew`.
        """
        message = kind.from_wire(self.keys, wire)
        self._check_time(int(message.issued_at.timestamp()))
        return message

    def _header(self, purpose: str, text: bytes, moment: str, nonce: str) -> str:
        key_id = self.keys.key_id
        value = base64.b64encode(self.keys.sign(purpose, text, key_id)).decode()
        return f"key={key_id}; time={moment}; nonce={nonce}; value={value}"

    def _request_text(self, method: str, target: str, body: bytes, moment: str, nonce: str) -> bytes:
        digest = hashlib.sha256(body).hexdigest()
        return "\n".join((self.link_id, method, target, moment, nonce, digest)).encode()

    def _response_text(self, request_header: str, status: int, body: bytes, moment: str, nonce: str) -> bytes:
        digest = hashlib.sha256(body).hexdigest()
        return "\n".join((self.link_id, request_header, str(status), moment, nonce, digest)).encode()

    def _parse(self, header: str) -> tuple[str, str, str, bytes]:
        found = _FORM.fullmatch(header)
        if found is None:
            raise BadSignature(f"no well-formed {HEADER} header: the link is for the other network only")
        try:
            value = base64.b64decode(found["value"], validate=True)
        except binascii.Error:
            raise BadSignature(f"the value in {HEADER} is not base64") from None
        return found["key"], found["time"], found["nonce"], value

    def _check_time(self, moment: str | int) -> None:
        apart = time.time() - int(moment)
        if abs(apart) > self.clock_skew:
            raise ClockSkew(
                f"signed {abs(apart):.0f} s in the {'past' if apart > 0 else 'future'}, where {self.clock_skew:.0f} s"
                " are allowed: set both networks' clocks (NTP)",
                server_time=int(time.time()),
            )
