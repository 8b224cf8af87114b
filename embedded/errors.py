"""What keeps `airlock up` from starting."""

from models.errors import ConfigurationError


class CannotStart(ConfigurationError):
    """A part cannot be started. The message is a sentence that says what to do."""

    kind, title = "cannot-start", "Airlock cannot start"
