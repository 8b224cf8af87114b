"""Errors of the link. Each class says whether a retry can help."""

from models.errors import AirlockError


class LinkError(AirlockError):
    """Base class of the link's errors."""

    kind, title, status = "link", "The link refused this", 400


class BadSignature(LinkError):
    """The signature was not made over these bytes."""

    kind, title, status = "bad-signature", "The signature does not fit", 401


class UnknownKey(LinkError):
    """The signing key is not trusted, or no longer."""

    kind, title, status = "unknown-key", "The signing key is not trusted", 403


class ClockSkew(LinkError):
    """The time of the signature is too far from ours: a replay, or a wrong clock."""

    kind, title, status = "clock-skew", "The clocks of the two networks differ too much", 401


class Malformed(LinkError):
    """Not a valid batch, manifest or receipt. A retry with the same bytes cannot help."""

    kind, title, status = "malformed", "Not a well-formed batch", 400


class UnsupportedVersion(LinkError):
    """Made by another version of the protocol."""

    kind, title, status = "unsupported-version", "Protocol version not supported", 400


class Oversize(LinkError):
    """More records or bytes than a batch may have."""

    kind, title, status = "oversize", "The batch is too large", 413


class Gap(LinkError):
    """A batch in between is missing. ``expected`` is the number of the batch that must come next."""

    kind, title, status = "gap", "A batch in between is missing", 409


class Fork(LinkError):
    """Two batches have the same place in the chain but other bytes: the histories differ. Stops the stream."""

    kind, title, status = "fork", "The same sequence number with other bytes", 422


class StreamStopped(LinkError):
    """An earlier fork stopped the stream. It waits for an operator."""

    kind, title, status = "stream-stopped", "The stream is stopped", 423


class LinkUnavailable(LinkError):
    """The other side did not answer, or asked us to wait. The same bytes are sent again later."""

    kind, title, status = "link-unavailable", "The other network does not answer", 503

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds to wait, where the other side asked for it."""


class LinkPaused(LinkError):
    """The other side refuses our signature. The link pauses until the keys or clocks are corrected."""

    kind, title, status = "link-paused", "The other network refuses our signature", 503
