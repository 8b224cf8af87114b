"""The error of `airlock up` when it cannot start."""

from models.errors import ConfigurationError


class CannotStart(ConfigurationError):
    """A part cannot be started. The message says what to do."""

    kind, title = "cannot-start", "Airlock cannot start"
