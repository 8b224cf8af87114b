"""Text of the other side, made safe to store and to show."""

from typing import Annotated

from pydantic import AfterValidator

_JOINERS = "\u200c\u200d"
"""Persian words need them; they are invisible but harmless."""
LONGEST = 1000


def cleaned(text: str, most: int = LONGEST) -> str:
    """The text in one line of at most ``most`` characters, as PostgreSQL can store it and a terminal may show it.

    Line breaks become spaces. NUL, other control characters, characters that turn the direction of text, and lone
    surrogates become U+FFFD.
    """
    return "".join(
        char if char.isprintable() or char in _JOINERS else " " if char.isspace() else "\ufffd" for char in text[:most]
    )


Cleaned = Annotated[str, AfterValidator(cleaned)]
"""Text of the other side in a message."""
