"""Short signed messages: the receiver's receipt, the sender's heartbeat, an operator's order for a new epoch.

A message crosses as its JSON, a line feed and the signature in base64.
"""

import base64
import binascii
from datetime import UTC, datetime
from typing import ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exchange.errors import Malformed, UnsupportedVersion
from exchange.wire.keys import LinkKeys
from exchange.wire.manifest import MAX_MANIFEST_BYTES, SPEC, Number, Sha256Hex
from models.foreign_text import Cleaned
from models.requests import Moment
from models.streams import StreamName


class Signed(BaseModel):
    """A message with a purpose of its own, signed by the key that it names."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    purpose: ClassVar[str]
    media_type: ClassVar[str]

    spec: int = SPEC
    link: str = Field(max_length=63)
    key_id: str = Field(max_length=64)
    issued_at: Moment = Field(default_factory=lambda: datetime.now(UTC))

    def to_wire(self, keys: LinkKeys) -> bytes:
        content = self.model_dump_json().encode()
        return content + b"\n" + base64.b64encode(keys.sign(self.purpose, content, self.key_id))

    @classmethod
    def from_wire(cls, keys: LinkKeys, wire: bytes) -> Self:
        """Verify and parse. Raises `Malformed`, `UnsupportedVersion`, `UnknownKey` or `BadSignature`."""
        content, _, encoded = wire.partition(b"\n")
        if len(wire) > MAX_MANIFEST_BYTES or not encoded:
            raise Malformed(f"not a {cls.purpose}: expected its JSON and a signature line")
        try:
            message = cls.model_validate_json(content)
            signature = base64.b64decode(encoded, validate=True)
        except (ValidationError, binascii.Error):
            raise Malformed(f"not a {cls.purpose}: the JSON or the signature line does not parse") from None
        keys.verify(cls.purpose, content, message.key_id, signature)
        if message.spec != SPEC:
            raise UnsupportedVersion(
                f"the {cls.purpose} is of protocol version {message.spec}, this side speaks {SPEC}"
            )
        return message


class SignedMessage(Signed):
    """A message about one stream."""

    stream: StreamName
    epoch: int = Field(ge=1, le=2**31 - 1)
    head: Sha256Hex = Field(description="Hash of the newest batch that the message covers")


class Receipt(SignedMessage):
    """The position of a stream at its receiver. Only a receipt lets the sender mark batches delivered."""

    purpose = "receipt"
    media_type: ClassVar[str] = "application/vnd.airlock.receipt"

    received: Number = Field(description="Highest batch of an unbroken run that is stored; 0 for none")
    applied: Number = Field(description="Highest batch up to which all are applied")
    quarantined: Number = Field(description="Records in quarantine that wait for an operator")


class Heartbeat(SignedMessage):
    """The end of a stream at its sender, sent when nothing is new. So silence means a dead link."""

    purpose = "heartbeat"
    media_type: ClassVar[str] = "application/vnd.airlock.heartbeat"

    sequence: Number = Field(description="Newest batch sealed; 0 for none")


class EpochOrder(SignedMessage):
    """An operator's order to begin a new epoch after the last batch that both sides have.

    ``head`` is the hash of that batch, all zeros if there is none.
    """

    purpose = "epoch-order"
    media_type: ClassVar[str] = "application/vnd.airlock.epoch-order"

    previous_epoch: int = Field(ge=1, le=2**31 - 1)
    previous_sequence: Number
    reason: Cleaned = Field(min_length=1, max_length=400)
    ordered_by: Cleaned = Field(min_length=1, max_length=100)
    accept_loss: bool = Field(False, description="Go on without records whose payload is past retention")

    @property
    def previous(self) -> tuple[int, int]:
        """Epoch and number of the batch that the new epoch follows."""
        return self.previous_epoch, self.previous_sequence
