"""What can go wrong at the crossing; each says whether trying again can help."""

from models.errors import AirlockError


class LinkError(AirlockError):
    """Base of what the link refuses."""

    kind, title, status = "link", "The link refused this", 400


class BadSignature(LinkError):
    """Signed, but not over these bytes."""

    kind, title, status = "bad-signature", "The signature does not fit", 401


class UnknownKey(LinkError):
    """Signed by a key that is not, or no longer, trusted."""

    kind, title, status = "unknown-key", "The signing key is not trusted", 403


class ClockSkew(LinkError):
    """Signed at a time too far from ours: a replay, or a clock that is wrong."""

    kind, title, status = "clock-skew", "The clocks of the two networks differ too much", 401


class Malformed(LinkError):
    """Not a batch, manifest or receipt; the same bytes will never be one."""

    kind, title, status = "malformed", "Not a well-formed batch", 400


class UnsupportedVersion(LinkError):
    """Made by another version of the protocol."""

    kind, title, status = "unsupported-version", "Protocol version not supported", 400


class Oversize(LinkError):
    """More records or bytes than a batch may have."""

    kind, title, status = "oversize", "The batch is too large", 413


class Gap(LinkError):
    """A batch in between is missing; ``expected`` says which one must come next."""

    kind, title, status = "gap", "A batch in between is missing", 409


class Fork(LinkError):
    """The same place in the chain with other bytes: the two sides' histories differ. Stops the stream."""

    kind, title, status = "fork", "The same sequence number with other bytes", 422


class StreamStopped(LinkError):
    """The stream was stopped by an earlier fork and waits for an operator."""

    kind, title, status = "stream-stopped", "The stream is stopped", 423


class LinkUnavailable(LinkError):
    """The other side did not answer, or asked to wait; the same bytes will be tried again."""

    kind, title, status = "link-unavailable", "The other network does not answer", 503

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the other side asked us to wait."""


class LinkPaused(LinkError):
    """The other side does not accept our signature: nothing to do until keys or clocks are mended."""

    kind, title, status = "link-paused", "The other network refuses our signature", 503
