"""Streams as an operator names them: one of the four."""

from typing import TYPE_CHECKING

from cli.errors import MISCONFIGURED, fail

if TYPE_CHECKING:
    from models.streams import StreamName


def stream_named(name: str) -> "StreamName":
    """The stream of this name. Where there is none, the command ends with a sentence that says so."""
    from models.streams import StreamName

    try:
        return StreamName(name)
    except ValueError:
        raise fail(f"there is no stream {name!r}; there are {', '.join(StreamName)}", MISCONFIGURED) from None
